import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { startProcess } from './processes.ts';

export interface Origin {
  readonly httpPort: number;
  readonly bulkPort: number;
  stop(): Promise<void>;
}

const BODY = 'x'.repeat(64);

/**
 * The servers behind every contender: haproxy answering by itself, because it is the fastest stock HTTP server there is
 * for a fixed answer (one thread carries several times the rate of the fastest contender, so that it never is what is
 * measured), and iperf3.
 *
 * `at` says where they listen, in the namespace with descriptor `netns` when that is given.
 */
export async function startOrigin(
  folder: string,
  at: { host: string; httpPort: number; bulkPort: number; netns?: number },
): Promise<Origin> {
  const { host, httpPort, bulkPort, netns } = at;
  const config = join(folder, `origin-${host}.cfg`);
  writeFileSync(
    config,
    `global
  nbthread 1
  maxconn 4000
defaults
  mode http
  timeout connect 5s
  timeout client 120s
  timeout server 120s
frontend origin
  bind ${host}:${httpPort} backlog 4096
  http-request return status 200 content-type text/plain string ${BODY}
`,
  );
  const start = (argv: readonly string[], port: number) =>
    startProcess(argv, { ready: { port }, ...(netns === undefined ? {} : { netns }) });
  const http = await start(['haproxy', '-db', '-f', config], httpPort);
  const bulk = await start(['iperf3', '-s', '-B', host, '-p', String(bulkPort)], bulkPort);
  return {
    httpPort,
    bulkPort,
    async stop() {
      await Promise.all([http.stop(), bulk.stop()]);
    },
  };
}
