import { createServer } from 'node:http';

/** What the server answers. The caller's secret is in it, as private data would be in a real page. */
export function greeting(name: string, secret: string): string {
  return secret === '' ? `hello, I am ${name}` : `hello, I am ${name}, and I know your ${secret}`;
}

/** The header in which the client sends its secret. */
export const SECRET_HEADER = 'x-secret';
/** Printed when the server can be asked. */
export const LISTENING = 'listening';

/** A plain web server: what an application in a pod is. It runs until it is killed. */
export function runWebServer(name: string, port: number): Promise<never> {
  const server = createServer((request, response) => {
    response.setHeader('content-type', 'text/plain');
    response.end(`${greeting(name, String(request.headers[SECRET_HEADER] ?? ''))}\n`);
  });
  server.listen(port, '::', () => process.stdout.write(`${LISTENING}\n`));
  return new Promise(() => {});
}
