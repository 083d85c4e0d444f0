/**
 * Mesh state of a control plane alone, in a process that sees each of its stalls.
 *
 *     mesh-state.ts <pods> <services>
 *
 * Pods come as JSON text, as an API server sends them, and are read by the kinds and kept as by a source. Prints one line of
 * JSON once everything is measured.
 */
import { setImmediate as turn } from 'node:timers/promises';
import { createMesh } from '../../src/control/mesh/mesh.ts';
import { DEFAULT_MESH_SETTINGS } from '../../src/control/mesh/settings.ts';
import { MESH_KINDS } from '../../src/control/objects/kinds.ts';
import { createBatch } from '../../src/control/sources/batch.ts';
import { readerOf } from '../../src/control/sources/of-kind.ts';
import { createObjectTable } from '../../src/kube/object-table.ts';

const [pods, services] = process.argv.slice(2).map(Number) as [number, number];
const NAMESPACES = 20;
const PODS_OF_A_NODE = 100;
/** Objects that a source reads in one turn. */
const PER_TURN = 200;
const ROUNDS = 500;

const mesh = createMesh(DEFAULT_MESH_SETTINGS);
const batch = createBatch({
  changed: (changes) => mesh.apply(changes),
  rejected({ reason }) {
    throw new Error(reason);
  },
});
const tables = new Map(
  MESH_KINDS.map((kind) => [
    kind.kind,
    createObjectTable<unknown>({
      ...readerOf(kind),
      onChange: (before, after, key) => batch.changed({ kind, key, before, after }),
    }),
  ]),
);
let version = 0;

/** As an event of a watch. */
function put(kind: string, object: object): void {
  const text = JSON.stringify(object);
  const parsed = JSON.parse(text) as { metadata: { namespace?: string; name: string } };
  const { namespace, name } = parsed.metadata;
  tables.get(kind)!.put(namespace === undefined ? name : `${namespace}/${name}`, String(++version), parsed);
}

const namespaceOf = (service: number) => `namespace-${service % NAMESPACES}`;
const ipOf = (net: number, index: number) => `${net}.${(index >> 16) & 255}.${(index >> 8) & 255}.${index & 255}`;

function podObject(index: number, isReady: boolean) {
  const service = index % services;
  const hash = (service * 2654435761).toString(16).slice(0, 9);
  const app = `application-${service}`;
  const name = `${app}-${hash}-${index.toString(36).padStart(5, '0')}`;
  return {
    metadata: {
      name,
      namespace: namespaceOf(service),
      uid: `00000000-0000-4000-8000-${String(index).padStart(12, '0')}`,
      generateName: `${app}-${hash}-`,
      creationTimestamp: '2026-01-01T00:00:00Z',
      labels: { app, version: 'v1', 'pod-template-hash': hash, 'app.kubernetes.io/part-of': 'everything' },
      annotations: { 'ambient.istio.io/redirection': 'enabled' },
      ownerReferences: [{ kind: 'ReplicaSet', name: `${app}-${hash}`, controller: true }],
    },
    spec: {
      nodeName: `node-${Math.floor(index / PODS_OF_A_NODE)}`,
      serviceAccountName: app,
      containers: [{ name: 'main', ports: [{ name: 'http', containerPort: 8080, protocol: 'TCP' }] }],
    },
    status: {
      phase: 'Running',
      podIPs: [{ ip: ipOf(10, index) }],
      conditions: [{ type: 'Ready', status: isReady ? 'True' : 'False' }],
    },
  };
}

function serviceObject(index: number, port: number) {
  const app = `application-${index}`;
  return {
    metadata: { name: app, namespace: namespaceOf(index), creationTimestamp: '2026-01-01T00:00:00Z' },
    spec: {
      clusterIPs: [ipOf(172, index)],
      ipFamilies: ['IPv4'],
      selector: { app },
      ports: [{ name: 'http', port, protocol: 'TCP', targetPort: 'http' }],
    },
  };
}

function sliceObject(service: number) {
  const endpoints = [];
  for (let index = service; index < pods; index += services) {
    const { metadata, spec, status } = podObject(index, true);
    const { namespace, name, uid } = metadata;
    endpoints.push({
      addresses: [status.podIPs[0]!.ip],
      conditions: { ready: true },
      nodeName: spec.nodeName,
      targetRef: { kind: 'Pod', namespace, name, uid },
    });
  }
  return {
    metadata: {
      name: `application-${service}-abcde`,
      namespace: namespaceOf(service),
      labels: { 'kubernetes.io/service-name': `application-${service}` },
    },
    addressType: 'IPv4',
    endpoints,
    ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
  };
}

const stalls: number[] = [];
let last = performance.now();
const ticks = setInterval(() => {
  const now = performance.now();
  stalls.push(now - last - 1);
  last = now;
}, 1);

async function putAll(kind: string, count: number, object: (index: number) => object): Promise<void> {
  for (let index = 0; index < count; index++) {
    put(kind, object(index));
    if (index % PER_TURN === PER_TURN - 1) await turn();
  }
}

const megabytes = () => Math.round(process.memoryUsage.rss() / 1_048_576);
let peak = 0;
const watch = setInterval(() => {
  peak = Math.max(peak, megabytes());
}, 20);

/** Milliseconds until the resources have followed. */
async function timed(change: () => void): Promise<number> {
  const start = performance.now();
  change();
  batch.flush();
  await mesh.settled();
  return performance.now() - start;
}

const empty = megabytes();
const start = performance.now();
await putAll('Namespace', NAMESPACES, (index) => ({ metadata: { name: `namespace-${index}` } }));
await putAll('Node', Math.ceil(pods / PODS_OF_A_NODE), (index) => ({
  metadata: {
    name: `node-${index}`,
    labels: { 'topology.kubernetes.io/region': 'region', 'topology.kubernetes.io/zone': `zone-${index % 3}` },
  },
}));
await putAll('Service', services, (index) => serviceObject(index, 80));
await putAll('EndpointSlice', services, sliceObject);
await putAll('AuthorizationPolicy', NAMESPACES, (index) => ({
  metadata: { name: 'allow', namespace: `namespace-${index}` },
  spec: {
    selector: { matchLabels: { version: 'v1' } },
    rules: [{ from: [{ source: { namespaces: [`namespace-${index}`] } }] }],
  },
}));
put('PeerAuthentication', {
  metadata: { name: 'default', namespace: 'istio-system' },
  spec: { mtls: { mode: 'STRICT' } },
});
await putAll('Pod', pods, (index) => podObject(index, true));
batch.flush();
await mesh.settled();
const seconds = (performance.now() - start) / 1000;
const { addresses } = mesh.resources.counts();
if (addresses !== pods + services) throw new Error(`${addresses} addresses`);
const filledStall = Math.max(...stalls.splice(0));

const podChanges: number[] = [];
for (let round = 0; round < ROUNDS; round++)
  podChanges.push(await timed(() => put('Pod', podObject((round * 7919) % pods, false))));
const serviceChange = await timed(() => put('Service', serviceObject(0, 81)));
const everything = await timed(() =>
  put('Namespace', { metadata: { name: 'istio-system', labels: { 'topology.istio.io/network': 'elsewhere' } } }),
);
const changedStall = Math.max(...stalls.splice(0));
clearInterval(ticks);
clearInterval(watch);

process.stdout.write(
  `${JSON.stringify({
    seconds,
    filledStall,
    changedStall,
    residentMb: megabytes(),
    peakMb: peak,
    emptyMb: empty,
    podChangesMs: podChanges.sort((a, b) => a - b),
    serviceChangeMs: serviceChange,
    everythingMs: everything,
  })}\n`,
);
