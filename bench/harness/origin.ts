import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { freePort } from './ports.ts';
import { type Running, startProcess } from './processes.ts';

export interface Origin {
  readonly httpPort: number;
  readonly bulkPort: number;
  readonly pids: readonly number[];
  stop(): Promise<void>;
}

const BODY = 'x'.repeat(64);

/**
 * The servers behind every contender: haproxy answering by itself, because it is the fastest stock HTTP server there is
 * for a fixed answer (one thread carries several times the rate of the fastest contender, so that it never is what is
 * measured), and iperf3.
 */
export async function startOrigin(folder: string, prefix: readonly string[] = [], host = '127.0.0.1'): Promise<Origin> {
  const httpPort = await freePort();
  const bulkPort = await freePort();
  const config = join(folder, `origin-${httpPort}.cfg`);
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
  const start = (command: string[], port: number): Promise<Running> => {
    const [program = '', ...args] = [...prefix, ...command];
    return startProcess(program, args, { ready: { port } });
  };
  const http = await start(['haproxy', '-db', '-f', config], httpPort);
  const bulk = await start(['iperf3', '-s', '-B', host, '-p', String(bulkPort)], bulkPort);
  return {
    httpPort,
    bulkPort,
    pids: [http.pid, bulk.pid],
    async stop() {
      await Promise.all([http.stop(), bulk.stop()]);
    },
  };
}
