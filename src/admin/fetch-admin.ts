import { CulvertError } from '../errors.ts';

/** How long an answer may take, in ms. */
const PATIENCE = 30_000;

/**
 * Asks the admin port of a process on this machine.
 * @param who whose port it is, for the error
 * @throws CulvertError ADMIN_UNREACHABLE
 */
export function fetchAdmin(
  who: 'agent' | 'control plane',
  port: number,
  path: string,
): Promise<{ status: number; body: string }> {
  const { request } = process.getBuiltinModule('node:http');
  return new Promise((resolve, reject) => {
    const fail = (cause: Error) => {
      const where = who === 'agent' ? 'on its node, in its network namespace' : 'in its pod';
      const why = `the ${who} does not answer on 127.0.0.1:${port} (${cause.message}): run this ${where}, and give its admin port with --admin`;
      reject(new CulvertError('ADMIN_UNREACHABLE', why, { cause }));
    };
    const call = request({ host: '127.0.0.1', port, path, timeout: PATIENCE, agent: false }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (text: string) => {
        body += text;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body }));
      response.on('error', fail);
    });
    call.on('timeout', () => call.destroy(new Error('timed out')));
    call.on('error', fail);
    call.end();
  });
}
