/** The other end of tunnels without the agent's code: Node's own TLS and HTTP/2, for how an agent treats its peers. */
import { createSecureServer, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2';
import type { Credentials } from './hbone-client.ts';
import { listen, type PodServer } from './pod-sockets.ts';
import type { Pod } from './pods.ts';

/** A CONNECT request as it arrived: names and values in turn, pseudo-header fields first. */
export type RawHeaders = readonly string[];

export interface HboneServerBehaviour {
  readonly credentials: Credentials;
  /** Called for each tunnel once HTTP/2 is spoken. */
  readonly session?: (session: ServerHttp2Session) => void;
  readonly request?: (stream: ServerHttp2Stream, headers: RawHeaders) => void;
}

/** Serves port 15008 of a pod. What it does with requests may change between them, the rest between tunnels. */
export async function listenHbone(pod: Pod, behaviour: () => HboneServerBehaviour): Promise<PodServer> {
  return listen(pod, 15008, {
    serve({ socket }) {
      const { credentials, session: onSession } = behaviour();
      const server = createSecureServer({
        ...credentials,
        requestCert: true,
        rejectUnauthorized: false,
        minVersion: 'TLSv1.3',
      });
      server.on('session', (session) => {
        session.on('error', () => {});
        onSession?.(session);
      });
      server.on('stream', (stream, _headers, _flags, raw) => {
        stream.on('error', () => {});
        behaviour().request?.(stream as ServerHttp2Stream, raw as unknown as RawHeaders);
      });
      // As if it had accepted the connection itself.
      server.emit('connection', socket);
    },
  });
}
