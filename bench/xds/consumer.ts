/**
 * The xDS client and the mesh state of an agent alone, in a process whose every stall is seen.
 *
 *     consumer.ts <address> <file with the root>
 *
 * Prints one line of JSON once it is in step.
 */
import { readFileSync } from 'node:fs';
import { createLogger } from '../../src/log/logger.ts';
import { createLocalLayer } from '../../src/state/local-layer.ts';
import { createMeshState } from '../../src/state/store.ts';
import { startXdsClient, type XdsClient } from '../../src/xds/client.ts';

const [address, root] = process.argv.slice(2) as [string, string];
const store = createMeshState({ localNode: 'bench' });
/** Between two turns of the loop: what passed, and what this thread worked of it. They differ on a busy machine. */
const passed: number[] = [];
const worked: number[] = [];
let last = { at: performance.now(), cpu: threadCpu() };
const ticks = setInterval(() => {
  // What loading TLS and HTTP/2 takes is paid once, before there is anybody to serve.
  if (!started?.isConnected()) {
    last = { at: performance.now(), cpu: threadCpu() };
    return;
  }
  const now = { at: performance.now(), cpu: threadCpu() };
  // A tick is due after 1 ms.
  passed.push(now.at - last.at - 1);
  worked.push(now.cpu - last.cpu);
  last = now;
}, 1);
const before = process.memoryUsage.rss();
const connectedAt = performance.now();
const cpuBefore = process.cpuUsage();
let started: XdsClient | null = null;
const client: XdsClient = startXdsClient({
  server: {
    prefix: 'XDS',
    address,
    roots: { kind: 'inline', pem: readFileSync(root, 'utf8') },
    altHostname: null,
    token: { kind: 'none' },
    clusterId: 'Kubernetes',
    headers: [],
  },
  node: { id: 'ztunnel~1.1.1.1~bench.bench~bench.svc.cluster.local', metadata: {} },
  store,
  underlay: createLocalLayer(store, {
    hasAddress: (name) => client.hasAddress(name),
    hasPolicy: (name) => client.hasPolicy(name),
  }),
  localNode: 'bench',
  onDemand: false,
  log: createLogger({ format: 'plain', level: 'warn', write: (line) => process.stderr.write(`${line}\n`) }),
  counted: { terminated() {}, message() {} },
});
started = client;
let peak = 0;
const watch = setInterval(() => {
  peak = Math.max(peak, process.memoryUsage.rss());
}, 50);
await client.synced;
const syncedMs = performance.now() - connectedAt;
clearInterval(ticks);
clearInterval(watch);
const cpu = process.cpuUsage(cpuBefore);
const { resources } = client.status().types.Address!;
const megabytes = (bytes: number) => Math.round(bytes / 1048576);
const worst = (values: readonly number[]) => Math.max(...values);
process.stdout.write(
  `${JSON.stringify({
    resources,
    syncedMs,
    worstStallMs: worst(passed),
    worstTurnMs: worst(worked),
    longTurns: worked.filter((ms) => ms > 10).length,
    cpuMs: (cpu.user + cpu.system) / 1000,
    grownMb: megabytes(process.memoryUsage.rss() - before),
    peakMb: megabytes(peak - before),
  })}\n`,
);
// The answer is on its way.
setTimeout(() => client.close(), 200);

function threadCpu(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}
