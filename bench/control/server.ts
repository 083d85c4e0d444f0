/**
 * Mesh state and delta ADS of a control plane with a generated mesh, as a process of its own that is told what to do.
 *
 *     server.ts <pods> <services> <file for the root>
 */
import { writeFileSync } from 'node:fs';
import { createAds } from '../../src/control/ads/ads.ts';
import type { ObjectChange } from '../../src/control/kinds.ts';
import { createMesh } from '../../src/control/mesh/mesh.ts';
import { DEFAULT_MESH_SETTINGS } from '../../src/control/mesh/settings.ts';
import { startControlServer } from '../../src/control/server.ts';
import { createLogger } from '../../src/log/logger.ts';
import { createRegistry } from '../../src/metrics/registry.ts';
import { createAuthority } from '../../test/native/authority.ts';
import { newObjects, podChange } from './generated-objects.ts';
import type { Order, Report } from './protocol.ts';

const [pods, services, rootFile] = [Number(process.argv[2]), Number(process.argv[3]), process.argv[4]!];
const mesh = createMesh(DEFAULT_MESH_SETTINGS);
let batch: ObjectChange[] = [];
for (const change of newObjects({ pods, services })) {
  batch.push(change);
  // As a list of the API server comes in pages.
  if (batch.length < 500) continue;
  mesh.apply(batch);
  batch = [];
  await new Promise((resolve) => setImmediate(resolve));
}
mesh.apply(batch);
batch = [];
await mesh.settled();

const ads = createAds({
  resources: mesh.resources,
  authenticate: async () => ({ namespace: 'bench', serviceAccount: 'bench', pod: null, node: null }),
  trustedAccounts: new Set(['bench/bench']),
  isSynced: () => true,
  limits: { streamsPerSecond: 10_000, streamsPerAgent: 10_000 },
  registry: createRegistry(),
  log: createLogger({ format: 'plain', level: 'warn', write: (line) => void process.stderr.write(line) }),
});
const authority = createAuthority();
const { chainPem, keyPem } = authority.material({ dnsNames: ['localhost'] });
const server = await startControlServer({
  host: '127.0.0.1',
  port: 0,
  certificate: { chainPem, keyPem, clientRootsPem: authority.rootPem },
  services: [ads.service],
  log: createLogger({ format: 'plain', level: 'warn', write: (line) => void process.stderr.write(line) }),
});
writeFileSync(rootFile, authority.rootPem);

/** What this thread worked between two turns of the loop since the last report. */
let longestTurn = 0;
let last = threadCpu();
setInterval(() => {
  const now = threadCpu();
  longestTurn = Math.max(longestTurn, now - last);
  last = now;
}, 1);
let cpu = process.cpuUsage();
let peak = 0;
setInterval(() => {
  peak = Math.max(peak, process.memoryUsage.rss());
}, 20);

let isReady = true;
process.on('message', (order: Order) => {
  if (order === 'change') {
    isReady = !isReady;
    const change = podChange(7, services, isReady);
    // The clock of both processes is the machine's.
    tell({ kind: 'changed', at: Number(process.hrtime.bigint()) / 1e6 });
    mesh.apply([change]);
  } else {
    const used = process.cpuUsage(cpu);
    const unanswered = ads.clients().filter(({ types }) => types.some((type) => type.unacknowledgedMs !== null)).length;
    tell({
      kind: 'report',
      cpuMs: (used.user + used.system) / 1000,
      residentMb: Math.round(process.memoryUsage.rss() / 1048576),
      peakMb: Math.round(peak / 1048576),
      longestTurnMs: longestTurn,
      unanswered,
    });
    longestTurn = 0;
    peak = 0;
    cpu = process.cpuUsage();
  }
});
process.on('disconnect', () => process.exit());
tell({ kind: 'serving', port: server.port, sinceStartMs: performance.now() });

function tell(report: Report): void {
  process.send!(report);
}

function threadCpu(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}
