import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { configDumpRoute } from '../../src/admin/admin-routes.ts';
import { serveAdmin } from '../../src/admin/admin-server.ts';
import { buildConfigDump, describeVersion, type PodState } from '../../src/admin/config-dump.ts';
import { dumpCertificates } from '../../src/identity/dump.ts';
import type { CertificateState } from '../../src/identity/manager.ts';
import { ADMIN_REJECTS } from '../../src/metrics/families.ts';
import { createRegistry } from '../../src/metrics/registry.ts';
import { dumpMesh } from '../../src/state/dump.ts';
import { loadLocal } from '../../src/state/local-file.ts';
import { createMeshState } from '../../src/state/store.ts';
import { ask, memoryLog } from './client.ts';

type Json = Record<string, unknown>;
interface Captured {
  workloads: (Json & { uid: string; services?: string[] })[];
  services: (Json & { endpoints: Record<string, { port: Json }> })[];
  policies: Json[];
  certificates: { identity: string; certChain: { pem: string }[]; rootCerts: { pem: string }[] }[];
  config: Json;
  version: Json;
  workloadState: Record<string, Json & { info: PodState['info']; connections: { inbound: []; outbound: [] } }>;
}

const captured = JSON.parse(readFileSync(new URL('golden/config_dump.json', import.meta.url), 'utf8')) as Captured;
// The incumbent lists a workload's services in no particular order; culvert sorts them.
for (const { services } of captured.workloads) services?.sort();

async function meshOf({ workloads, services, policies }: Captured) {
  const ports = (key: string, uid: string) =>
    services.find(({ namespace, hostname }) => `${namespace}/${hostname}` === key)?.endpoints[uid]?.port ?? {};
  const file = {
    workloads: workloads.map((workload) => ({
      ...workload,
      services: Object.fromEntries((workload.services ?? []).map((key) => [key, ports(key, workload.uid)])),
    })),
    services: services.map(({ endpoints: _, ...definition }) => definition),
    policies,
  };
  const mesh = createMeshState({ localNode: 'node1' });
  mesh.apply(await loadLocal(JSON.stringify(file), 'captured'));
  return mesh;
}

const pemOf = (certificates: { pem: string }[]) =>
  certificates.map(({ pem }) => Buffer.from(pem, 'base64').toString()).join('');

const certificateState = ({ identity, certChain, rootCerts }: Captured['certificates'][number]): CertificateState => ({
  identity,
  state: 'Available',
  renewAt: 0,
  certificate: {
    identity,
    privateKey: generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey,
    chainPem: pemOf(certChain),
    rootsPem: pemOf(rootCerts),
    notBefore: 0,
    notAfter: 0,
    serial: '',
  },
});

const listeners = [{ address: '::', port: 15008, worker: 0, filters: ['loop-guard', 'limits', 'policy'] }];

test('state like the captured state is served field by field as the incumbent served it', async (context) => {
  const build = {
    version: '1',
    gitRevision: 'abc',
    buildProfile: 'release',
    buildStatus: 'Clean',
    istioVersion: 'unknown',
  };
  const mesh = await meshOf(captured);
  const dump = () =>
    buildConfigDump({
      mesh: dumpMesh(mesh),
      staticConfig: { workloads: [], policies: [], services: [] },
      version: describeVersion(build),
      config: captured.config,
      certificates: dumpCertificates(captured.certificates.toReversed().map(certificateState)),
      pods: Object.entries(captured.workloadState)
        .toReversed()
        .map(([uid, { info, connections }]) => ({
          uid,
          info,
          serving: { kind: 'up', ...connections, listeners, unhealthyEndpoints: [] },
        })),
    });
  const rejects = createRegistry().counter(ADMIN_REJECTS);
  const service = await serveAdmin({ routes: [configDumpRoute(dump)], port: 0, rejects, log: memoryLog().log });
  context.after(() => service.close(0));
  const { text } = await ask(service.addresses[0]!.port, '/config_dump');
  const served = JSON.parse(text) as Captured;
  const { version, workloadState, ...rest } = served;
  const { version: capturedVersion, workloadState: capturedPods, ...capturedRest } = captured;
  assert.deepEqual(rest, capturedRest);
  assert.deepEqual(Object.keys(workloadState), Object.keys(capturedPods).sort());
  for (const [uid, pod] of Object.entries(workloadState)) {
    assert.deepEqual(pod, { ...capturedPods[uid], listeners });
  }
  const shared = (names: Json) =>
    Object.keys(names)
      .filter((name) => !/^(?:rust|node)Version$/.test(name))
      .sort();
  assert.deepEqual(shared(version), shared(capturedVersion));
  assert.doesNotMatch(text, /PRIVATE/);
});

test('a pod whose sockets are not there yet is pending and has no connections', () => {
  const info = { name: 'p', namespace: 'demo', serviceAccount: 'default' };
  const { workloadState } = buildConfigDump({
    mesh: { workloads: [], services: [], policies: [], stagedServices: {} },
    staticConfig: { workloads: [], policies: [], services: [] },
    version: describeVersion({ version: '', gitRevision: '', buildProfile: '', buildStatus: '', istioVersion: '' }),
    config: {},
    certificates: [],
    pods: [{ uid: 'b', info: { ...info, uid: 'b' } as PodState['info'], serving: { kind: 'pending' } }],
  });
  assert.deepEqual(workloadState, { b: { state: 'Pending', info } });
});
