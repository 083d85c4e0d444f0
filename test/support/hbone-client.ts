/** An HBONE client that shares no code with the agent: Node's own TLS and HTTP/2. */

import { type ClientHttp2Session, type ClientHttp2Stream, connect, type IncomingHttpHeaders } from 'node:http2';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import { openEmbeddedCa } from '../../src/identity/embedded-ca.ts';
import { privateKeyPem } from '../../src/identity/workload-key.ts';
import { dial, patiently } from './pod-sockets.ts';
import type { Pod } from './pods.ts';

export interface Credentials {
  readonly key: string;
  readonly cert: string;
  /** Roots that the peer is verified against. */
  readonly ca: string;
}

/** A certificate of the CA in this folder (made when there is none yet), issued at `at`, in ms since 1970. */
export async function credentials(
  caDir: string,
  identity: string,
  { at = Date.now(), ttl = 3_600_000 } = {},
): Promise<Credentials> {
  const authority = await openEmbeddedCa({ dir: caDir, ttl, now: () => at });
  const { privateKey, chainPem, rootsPem } = await authority.sign(identity);
  return { key: privateKeyPem(privateKey), cert: chainPem, ca: rootsPem };
}

/** TLS to a port of a pod as a tunnel's client does it. Resolves when the handshake is done on this side. */
export async function secure(from: Pod, ip: string, port: number, presented: Partial<Credentials>): Promise<TLSSocket> {
  const { socket } = dial(from, ip, port);
  const tls = connectTls({
    socket,
    ...presented,
    ALPNProtocols: ['h2'],
    minVersion: 'TLSv1.3',
    // Identities are SPIFFE ids; host names mean nothing here.
    checkServerIdentity: () => undefined,
  });
  const done = Promise.withResolvers<void>();
  tls.once('secureConnect', done.resolve);
  tls.once('error', done.reject);
  await patiently('no TLS handshake', done.promise);
  return tls;
}

/** A tunnel. In TLS 1.3 a refused client certificate shows only afterwards, as an error of the session. */
export async function openTunnel(from: Pod, ip: string, presented: Credentials): Promise<ClientHttp2Session> {
  const tls = await secure(from, ip, 15008, presented);
  const session = connect('https://hbone.invalid', { createConnection: () => tls });
  session.on('error', () => {});
  return session;
}

export interface TunnelAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly stream: ClientHttp2Stream;
}

/** One request; CONNECT unless the headers say otherwise. */
export async function request(
  session: ClientHttp2Session,
  authority: string,
  headers: Readonly<Record<string, string>> = {},
): Promise<TunnelAnswer> {
  const stream = session.request({ ':method': 'CONNECT', ':authority': authority, ...headers }, { endStream: false });
  const answered = Promise.withResolvers<IncomingHttpHeaders>();
  stream.once('response', answered.resolve);
  stream.on('error', answered.reject);
  const answer = await patiently('no answer to the request', answered.promise);
  return { status: Number(answer[':status']), headers: answer, stream };
}
