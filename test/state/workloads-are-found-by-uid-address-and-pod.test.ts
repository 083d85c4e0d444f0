import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { WorkloadUpdate } from '../../src/state/mesh-state.ts';
import { createMeshState } from '../../src/state/store.ts';
import { meshOf, pod, workload } from './mesh-builder.ts';

const IP = '10.0.0.1';

test('a workload is found by uid and by each of its addresses on its own network only', () => {
  const mesh = meshOf({ workloads: [workload('a', { network: 'n1', workloadIps: [IP, '2001:db8::1'] })] });
  assert.equal(mesh.workload('Kubernetes//Pod/default/a')?.name, 'a');
  assert.equal(mesh.workloadByAddress('n1', IP)?.name, 'a');
  assert.equal(mesh.workloadByAddress('n1', '2001:db8::1')?.name, 'a');
  assert.equal(mesh.workloadByAddress('', IP), null);
  assert.equal(mesh.workloadByAddress('n1', '10.0.0.2'), null);
});

test('a host-network workload does not own its address', () => {
  const mesh = meshOf({ workloads: [workload('a', { workloadIps: [IP], networkMode: 'HostNetwork' })] });
  assert.equal(mesh.workloadByAddress('', IP), null);
  assert.notEqual(mesh.workload('Kubernetes//Pod/default/a'), null);
});

const podUid = 'Kubernetes//Pod/default/p';
const entryUid = 'Kubernetes/networking.istio.io/WorkloadEntry/default/e';
const owners: readonly [what: string, shared: readonly WorkloadUpdate[], owner: string][] = [
  [
    'a pod wins over another kind, also when it came first',
    [workload('p', { uid: podUid, protocol: 'TCP' }), workload('e', { uid: entryUid })],
    'p',
  ],
  ['among others HBONE wins', [workload('h', { uid: 'a/h' }), workload('t', { uid: 'a/t', protocol: 'TCP' })], 'h'],
  ['among equals the last one wins', [workload('first'), workload('last')], 'last'],
];

for (const [what, shared, owner] of owners) {
  test(`of workloads that share an address, ${what}`, () => {
    const mesh = meshOf({
      workloads: shared.map((each) => ({ ...each, workload: { ...each.workload, workloadIps: [IP] } })),
    });
    assert.equal(mesh.workloadByAddress('', IP)?.name, owner);
  });
}

test('when one of the workloads that share an address goes, the other owns it', () => {
  const mesh = meshOf({ workloads: [workload('a', { workloadIps: [IP] }), workload('b', { workloadIps: [IP] })] });
  mesh.apply({ removedWorkloads: ['Kubernetes//Pod/default/b'] });
  assert.equal(mesh.workloadByAddress('', IP)?.name, 'a');
  mesh.apply({ removedWorkloads: ['Kubernetes//Pod/default/a'] });
  assert.equal(mesh.workloadByAddress('', IP), null);
});

test('a workload that changes its address is no longer found by the old one', () => {
  const mesh = meshOf(
    { workloads: [workload('a', { workloadIps: [IP, IP] })] },
    { workloads: [workload('a', { workloadIps: ['10.0.0.2'] })] },
  );
  assert.equal(mesh.workloadByAddress('', IP), null);
  assert.equal(mesh.workloadByAddress('', '10.0.0.2')?.name, 'a');
});

test('a workload is found by the name it is to be resolved by, within its namespace', () => {
  const mesh = meshOf({ workloads: [workload('a', { hostname: 'a.example.com' })] });
  assert.equal(mesh.workloadByHostname('default', 'a.example.com')?.name, 'a');
  assert.equal(mesh.workloadByHostname('other', 'a.example.com'), null);
});

const strangers: readonly [what: string, update: WorkloadUpdate][] = [
  ['another name', workload('b', { serviceAccount: 'a' })],
  ['another namespace', workload('a', { namespace: 'other' })],
  ['another service account', workload('a', { serviceAccount: 'other' })],
  ['another node', workload('a', { node: 'node-b' })],
];

for (const [what, update] of strangers) {
  test(`a workload of ${what} is not the pod's own`, () => {
    assert.equal(meshOf({ workloads: [update] }).localWorkload(pod('a')), null);
  });
}

test("the pod's own workload is found by name, namespace and service account, not by uid or address", () => {
  const mesh = meshOf({ workloads: [workload('a', { uid: 'whatever' })] });
  assert.equal(mesh.localWorkload(pod('a'))?.uid, 'whatever');
});

test('without a node name the workloads of all nodes are local', () => {
  const mesh = createMeshState({ localNode: '' });
  mesh.apply({ workloads: [workload('a', { node: 'node-b' })] });
  assert.equal(mesh.localWorkload(pod('a'))?.name, 'a');
});

test('waiting for a workload that is there ends at once', async () => {
  const mesh = meshOf({ workloads: [workload('a')] });
  assert.equal((await mesh.waitForLocalWorkload(pod('a'), 60_000))?.name, 'a');
});

test('waiting ends when the workload arrives, for everyone who waits', async () => {
  const mesh = meshOf();
  const waiting = [mesh.waitForLocalWorkload(pod('a'), 60_000), mesh.waitForLocalWorkload(pod('a'), 60_000)];
  mesh.apply({ workloads: [workload('b')] });
  mesh.apply({ workloads: [workload('a')] });
  assert.deepEqual(
    (await Promise.all(waiting)).map((found) => found?.name),
    ['a', 'a'],
  );
});

test('waiting for a workload that never arrives ends with nothing at the deadline', async () => {
  assert.equal(await meshOf({ workloads: [workload('b')] }).waitForLocalWorkload(pod('a'), 5), null);
});

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

test('thousands of networks, whose names tenants choose, take little memory', (context) => {
  const networks = 4000;
  const used = () => {
    collect();
    const { heapUsed, external } = process.memoryUsage();
    return heapUsed + external;
  };
  const ip = (index: number) => `10.1.${index >> 8}.${index & 255}`;
  const mesh = meshOf();
  const before = used();
  for (let index = 0; index < networks; index++) {
    mesh.apply({ workloads: [workload(`w${index}`, { network: `n${index}`, workloadIps: [ip(index)] })] });
  }
  const each = (used() - before) / networks;
  context.diagnostic(`${each.toFixed()} bytes for each network`);
  assert.ok(each < 10_000, `${each} bytes for each network`);
  assert.equal(mesh.workloadByAddress('n7', ip(7))?.name, 'w7');
  assert.equal(mesh.workloadByAddress('n7', ip(8)), null);
});
