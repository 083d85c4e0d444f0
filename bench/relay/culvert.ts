import { fileURLToPath } from 'node:url';
import { freePort } from '../harness/ports.ts';
import { startProcess } from '../harness/processes.ts';
import type { Contender } from './contender.ts';

const peer = fileURLToPath(new URL('../relay-peer.ts', import.meta.url));

/** The data path of the agent, both ends, under the flags of the agent’s threads. */
export const culvert: Contender = {
  name: 'culvert',
  async start({ certificates, originPort }) {
    const nearPort = await freePort();
    const farPort = await freePort();
    const start = (role: 'near' | 'far', listen: number, to: number) => {
      const own = certificates[role];
      const other = certificates[role === 'near' ? 'far' : 'near'];
      const args = [role, String(listen), String(to), own.key, own.chain, own.roots, own.identity, other.identity];
      return startProcess([process.execPath, '--max-semi-space-size=1', peer, ...args], { ready: { port: listen } });
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
