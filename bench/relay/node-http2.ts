import { fileURLToPath } from 'node:url';
import { freePort } from '../harness/ports.ts';
import { startProcess } from '../harness/processes.ts';
import type { Contender } from './contender.ts';

const peer = fileURLToPath(new URL('./node-http2-peer.ts', import.meta.url));

/** HTTP/2 CONNECT streams in one TLS session, the way one writes it with node:http2. */
export const nodeHttp2: Contender = {
  name: 'node:http2',
  async start({ certificates: { near, far }, originPort }) {
    const nearPort = await freePort();
    const farPort = await freePort();
    const start = (role: 'near' | 'far', listen: number, to: number) => {
      const { key, chain, roots } = role === 'near' ? near : far;
      const args = [peer, role, String(listen), String(to), key, chain, roots];
      return startProcess([process.execPath, ...args], { ready: { port: listen } });
    };
    const farProcess = await start('far', farPort, originPort);
    const nearProcess = await start('near', nearPort, farPort);
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
