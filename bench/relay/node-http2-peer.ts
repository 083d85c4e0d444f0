/**
 * One side of the node:http2 contender, as simple as it is usually written: pipes, and windows of the size that culvert
 * may grow to.
 *
 *     node node-http2-peer.ts near|far <port to listen on> <port to connect to> <key> <chain> <roots>
 */

import { readFileSync } from 'node:fs';
import { connect as connectHttp2, createSecureServer, type ServerHttp2Stream } from 'node:http2';
import { connect as connectTcp, createServer } from 'node:net';
import { pipeline } from 'node:stream';

const STREAM_WINDOW = 4 * 1024 * 1024;
const CONNECTION_WINDOW = 16 * 1024 * 1024;

const [role, listen, to, key = '', chain = '', roots = ''] = process.argv.slice(2);
const tls = {
  key: readFileSync(key),
  cert: readFileSync(chain),
  ca: readFileSync(roots),
  minVersion: 'TLSv1.3' as const,
  settings: { initialWindowSize: STREAM_WINDOW },
};
const ended = () => {};

if (role === 'near') {
  // Identities are SPIFFE URIs, not host names; the chain is verified.
  const session = connectHttp2(`https://127.0.0.1:${to}`, { ...tls, checkServerIdentity: () => undefined });
  session.on('connect', () => session.setLocalWindowSize(CONNECTION_WINDOW));
  createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    const stream = session.request({ ':method': 'CONNECT', ':authority': 'origin:80' });
    pipeline(socket, stream, ended);
    pipeline(stream, socket, ended);
  }).listen(Number(listen), '127.0.0.1', 4096);
} else {
  const server = createSecureServer({ ...tls, requestCert: true, rejectUnauthorized: true });
  server.on('session', (session) => session.setLocalWindowSize(CONNECTION_WINDOW));
  server.on('stream', (stream: ServerHttp2Stream) => {
    const socket = connectTcp({ port: Number(to), host: '127.0.0.1', allowHalfOpen: true, noDelay: true });
    socket.on('connect', () => {
      stream.respond({ ':status': 200 });
      pipeline(stream, socket, ended);
      pipeline(socket, stream, ended);
    });
    socket.on('error', () => stream.close());
    stream.on('error', () => socket.destroy());
  });
  server.listen(Number(listen), '127.0.0.1');
}
