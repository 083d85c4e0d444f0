/**
 * *tunnels*: how many cold tunnels two processes open one after the other (TCP, mutual TLS 1.3, CONNECT and its answer),
 * beside openssl's s_time and s_server, which do the TLS handshake alone, with the same keys and key exchange.
 */
import { fileURLToPath } from 'node:url';
import { runChecked } from '../src/netns/run.ts';
import type { Bench } from './harness/bench.ts';
import { makeCertificates } from './harness/certificates.ts';
import { TLS_GROUPS } from './harness/data-path.ts';
import { type Figure, median, thousands } from './harness/figures.ts';
import { freePort } from './harness/ports.ts';
import { startProcess } from './harness/processes.ts';

const peer = fileURLToPath(new URL('./tunnel-peer.ts', import.meta.url));
const CLASSICAL = 'X25519';

export const tunnels: Bench = async ({ folder, quick, progress }) => {
  const seconds = quick ? 1 : 4;
  const rounds = quick ? 1 : 5;
  const { near, far } = await makeCertificates(folder);
  const node = [process.execPath, '--max-semi-space-size=1', peer];

  const stops: (() => Promise<void>)[] = [];
  const farOf = async (groups: string) => {
    const port = await freePort();
    const { stop } = await startProcess([...node, 'far', String(port), far.key, far.chain, far.roots, groups], {
      ready: { port },
    });
    stops.push(stop);
    return async () => {
      const args = ['near', String(port), near.key, near.chain, near.roots, groups, far.identity, String(seconds)];
      return Number(await runChecked([...node, ...args]));
    };
  };
  try {
    const rawPort = await freePort();
    const rawServer = ['openssl', 's_server', '-accept', String(rawPort), '-quiet', '-tls1_3', '-groups', CLASSICAL];
    const files = (side: typeof near) => ['-cert', side.chain, '-key', side.key, '-CAfile', side.roots];
    // No tickets, as in the agent: nothing is resumed.
    const { stop } = await startProcess([...rawServer, ...files(far), '-Verify', '1', '-num_tickets', '0'], {
      ready: { port: rawPort },
    });
    stops.push(stop);
    const raw = async () => {
      const to = ['-connect', `127.0.0.1:${rawPort}`, '-new', '-time', String(seconds), '-verify', '1'];
      const text = await runChecked(['openssl', 's_time', ...to, ...files(near)]);
      const [, count, took] = /(\d+) connections in (\d+) real seconds/.exec(text) ?? [];
      if (count === undefined) throw new Error(`openssl s_time says:\n${text}`);
      return Number(count) / Number(took);
    };
    const [classical, hybrid] = [await farOf(CLASSICAL), await farOf(TLS_GROUPS)];
    await classical();

    const rates = { raw: [] as number[], classical: [] as number[], hybrid: [] as number[] };
    for (let round = 0; round < rounds; round++) {
      rates.raw.push(await raw());
      rates.classical.push(await classical());
      rates.hybrid.push(await hybrid());
      progress(
        `tunnels: openssl ${thousands(rates.raw.at(-1)!)}/s, culvert ${thousands(rates.classical.at(-1)!)}/s, with ML-KEM ${thousands(rates.hybrid.at(-1)!)}/s`,
      );
    }
    const of = (name: 'classical' | 'hybrid') => median(rates[name].map((rate, round) => rate / rates.raw[round]!));
    const figure = (what: string, name: 'classical' | 'hybrid', bound: Figure['bound']): Figure => ({
      what,
      measured: `culvert ${thousands(median(rates[name]))}/s, openssl ${thousands(median(rates.raw))}/s`,
      value: of(name),
      printed: `${of(name).toFixed(2)}× raw mutual TLS`,
      bound,
    });
    return [
      figure('cold tunnels, X25519', 'classical', { atLeast: 0.8 }),
      figure('cold tunnels, X25519MLKEM768', 'hybrid', null),
    ];
  } finally {
    for (const stop of stops.reverse()) await stop();
  }
};
