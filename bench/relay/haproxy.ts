import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { freePort } from '../harness/ports.ts';
import { startProcess } from '../harness/processes.ts';
import type { Contender } from './contender.ts';

const common = `global
  nbthread 1
  maxconn 4000
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-server-options ssl-min-ver TLSv1.3
defaults
  mode tcp
  timeout connect 5s
  timeout client 120s
  timeout server 120s
`;

/** A TLS tunnel of two haproxies, as its manual describes it: one TLS connection per connection. */
export const haproxy: Contender = {
  name: 'haproxy',
  async start({ folder, certificates: { near, far }, originPort }) {
    const nearPort = await freePort();
    const farPort = await freePort();
    const nearConfig = join(folder, `haproxy-near-${nearPort}.cfg`);
    const farConfig = join(folder, `haproxy-far-${farPort}.cfg`);
    writeFileSync(
      nearConfig,
      `${common}listen near
  bind 127.0.0.1:${nearPort} backlog 4096
  server far 127.0.0.1:${farPort} ssl crt ${near.bundle} ca-file ${near.roots} verify required
`,
    );
    writeFileSync(
      farConfig,
      `${common}listen far
  bind 127.0.0.1:${farPort} backlog 4096 ssl crt ${far.bundle} ca-file ${far.roots} verify required
  server origin 127.0.0.1:${originPort}
`,
    );
    const farProcess = await startProcess(['haproxy', '-db', '-f', farConfig], { ready: { port: farPort } });
    const nearProcess = await startProcess(['haproxy', '-db', '-f', nearConfig], { ready: { port: nearPort } });
    return {
      port: nearPort,
      nearPids: [nearProcess.pid],
      farPids: [farProcess.pid],
      async stop() {
        await nearProcess.stop();
        await farProcess.stop();
      },
    };
  },
};
