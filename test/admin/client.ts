/** A plain HTTP client and a silent log, for tests of the agent's HTTP servers. */
import { once } from 'node:events';
import http from 'node:http';
import net from 'node:net';
import { createLogger, type Logger } from '../../src/log/logger.ts';

export interface Answer {
  status: number;
  headers: http.IncomingHttpHeaders;
  body: Buffer;
  text: string;
}

export interface Ask {
  ip?: string;
  method?: string;
  headers?: Record<string, string>;
}

export async function ask(
  port: number,
  path: string,
  { ip = '127.0.0.1', method = 'GET', headers = {} }: Ask = {},
): Promise<Answer> {
  const request = http.request({ host: ip, port, path, method, headers, agent: false }).end();
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  const body = Buffer.concat(await response.toArray());
  return { status: response.statusCode ?? 0, headers: response.headers, body, text: body.toString() };
}

/** Everything the server says to these bytes until it closes, and how long that took. */
export async function converse(port: number, bytes: string | null): Promise<{ text: string; ms: number }> {
  const start = performance.now();
  const socket = net.connect({ host: '127.0.0.1', port, allowHalfOpen: true });
  if (bytes !== null) socket.write(bytes);
  const chunks: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  await once(socket, 'end').catch(() => {});
  socket.destroy();
  return { text: Buffer.concat(chunks).toString(), ms: performance.now() - start };
}

export function memoryLog(): { log: Logger; lines: string[] } {
  const lines: string[] = [];
  return { log: createLogger({ format: 'plain', level: 'trace', write: (line) => lines.push(line) }), lines };
}
