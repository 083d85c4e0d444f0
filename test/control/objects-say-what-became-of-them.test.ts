import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Kind } from '../../src/control/kinds.ts';
import { alwaysHeld, type Lease } from '../../src/control/lease.ts';
import { createMesh } from '../../src/control/mesh/mesh.ts';
import { DEFAULT_MESH_SETTINGS } from '../../src/control/mesh/settings.ts';
import { createRejections } from '../../src/control/rejections.ts';
import { watchKubernetes } from '../../src/control/sources/kubernetes.ts';
import { startStatusWriter } from '../../src/control/status/status-writer.ts';
import { createKubeApi } from '../../src/kube/api.ts';
import { fields } from '../../src/kube/object.ts';
import { type ApiServer, noApiServer, startApiServer } from '../cni/support/api-server.ts';
import { eventually } from '../cni/support/eventually.ts';
import { installShippedKinds } from './support/shipped-kinds.ts';

/** The part of a control plane that is between objects and their status. */
function startReplica(server: ApiServer, lease: Lease, revision = '') {
  const api = createKubeApi({ host: '127.0.0.1', port: server.port, serviceAccountDir: server.serviceAccountDir });
  const writes: string[] = [];
  const counted = {
    get: api.get,
    apply: (path: string, object: unknown, manager: string) => {
      writes.push(path);
      return api.apply(path, object, manager);
    },
    mergePatch: (path: string, patch: unknown) => {
      writes.push(path);
      return api.mergePatch(path, patch);
    },
  };
  const log = { info() {}, warn() {} };
  const mesh = createMesh({ ...DEFAULT_MESH_SETTINGS, revision });
  const rejections = createRejections();
  // The shipped kinds let no WorkloadEntry through that cannot be read: one is made up.
  const kinds = mesh.kinds.map((kind): Kind => {
    if (kind.kind !== 'WorkloadEntry') return kind;
    return {
      ...kind,
      read(object) {
        const entry = kind.read(object);
        const isBad = fields(fields(object).spec).address === 'bad';
        if (entry !== null && isBad) throw new Error('spec.address: bad is no address');
        return entry;
      },
    };
  });
  const source = watchKubernetes({
    ...{ api, kinds, log },
    listener: {
      changed(changes) {
        rejections.apply(changes);
        mesh.apply(changes);
      },
      rejected: (object) => rejections.rejected(object),
    },
  });
  const writer = startStatusWriter({
    ...{ api: counted, lease, statuses: mesh.statuses, rejections, revision, log },
    checkMs: 500,
  });
  return {
    writes,
    close() {
      writer.close();
      source.close();
      api.close();
    },
  };
}

test('objects say what became of them', { skip: noApiServer }, async (t) => {
  const server = await startApiServer(t);
  await installShippedKinds(server);
  const policies = '/apis/security.istio.io/v1/namespaces/default/authorizationpolicies';
  const workloads = '/apis/networking.istio.io/v1/namespaces/default/workloadentries';
  const entries = '/apis/networking.istio.io/v1/namespaces/default/serviceentries';
  const conditionsOf = async (path: string) => {
    const { conditions = [] } = fields((await server.call('GET', path)).body.status);
    return (conditions as { type: string; status: string; reason: string; observedGeneration: number }[])
      .map(({ type, status, reason }) => `${type} ${status} ${reason}`)
      .sort();
  };
  const says = (path: string, ...wanted: string[]) =>
    eventually(`${path}: ${wanted.join()}`, async () => {
      assert.deepEqual(await conditionsOf(path), wanted);
      return true;
    });
  const peers = '/apis/security.istio.io/v1/namespaces/default/peerauthentications';
  const policy = { apiVersion: 'security.istio.io/v1', kind: 'AuthorizationPolicy' };
  let replica = startReplica(server, alwaysHeld);
  t.after(() => replica.close());

  await t.test('a policy that is in force, one that cannot be, and one that is corrected', async () => {
    await server.create(policies, { ...policy, metadata: { name: 'good' }, spec: { rules: [{}] } });
    await server.create(policies, { ...policy, metadata: { name: 'audit' }, spec: { action: 'AUDIT' } });
    await server.create(policies, { ...policy, metadata: { name: 'typo' }, spec: { acton: 'DENY' } });
    await says(`${policies}/good`, 'ZtunnelAccepted True Accepted');
    await says(`${policies}/audit`, 'ZtunnelAccepted False UnsupportedValue');
    await says(`${policies}/typo`, 'ZtunnelAccepted False Invalid');
    await server.call('PATCH', `${policies}/typo`, { spec: { acton: null, action: 'DENY' } });
    await says(`${policies}/typo`, 'ZtunnelAccepted True Accepted');
  });

  await t.test('a rejected object for which another stands in is judged once', async () => {
    const peer = { apiVersion: 'security.istio.io/v1', kind: 'PeerAuthentication', metadata: { name: 'typo' } };
    await server.create(peers, { ...peer, spec: { mtsl: { mode: 'STRICT' } } });
    await server.create(policies, { ...policy, metadata: { name: 'once' }, spec: { acton: 'DENY' } });
    await says(`${peers}/typo`, 'culvert.io/Accepted False Invalid');
    await says(`${policies}/once`, 'ZtunnelAccepted False Invalid');
    await server.call('PATCH', `${peers}/typo`, { metadata: { labels: { touched: 'yes' } } });
    await server.call('PATCH', `${policies}/once`, { metadata: { labels: { touched: 'yes' } } });
    // Many rounds of a loop by which each write would bring about another.
    await new Promise((resolve) => setTimeout(resolve, 1500));
    const written = (path: string) => replica.writes.filter((each) => each === `${path}/status`).length;
    assert.deepEqual([written(`${peers}/typo`), written(`${policies}/once`)], [1, 1]);
    await server.call('PATCH', `${peers}/typo`, { spec: { mtsl: null, mtls: { mode: 'STRICT' } } });
    await says(`${peers}/typo`);
  });

  await t.test('objects of another revision are left to it', async () => {
    const other = { labels: { 'istio.io/rev': 'other' } };
    const workload = { apiVersion: 'networking.istio.io/v1', kind: 'WorkloadEntry' };
    await server.create(policies, { ...policy, metadata: { name: 'theirs', ...other }, spec: { acton: 'DENY' } });
    await server.create(workloads, { ...workload, metadata: { name: 'theirs', ...other }, spec: { address: 'bad' } });
    await server.create(policies, { ...policy, metadata: { name: 'ours' }, spec: { acton: 'DENY' } });
    // The replica takes all; what it says of them another one does not take back.
    await says(`${workloads}/theirs`, 'culvert.io/Accepted False Invalid');
    await says(`${policies}/theirs`, 'ZtunnelAccepted False Invalid');
    replica.close();
    replica = startReplica(server, alwaysHeld, 'culvert');
    await server.call('PATCH', `${policies}/theirs`, { metadata: { annotations: { touched: 'yes' } } });
    await server.call('PATCH', `${policies}/ours`, { spec: { acton: null, action: 'DENY' } });
    await says(`${policies}/ours`, 'ZtunnelAccepted True Accepted');
    await new Promise((resolve) => setTimeout(resolve, 1000));
    assert.deepEqual(
      replica.writes.filter((path) => path.includes('/theirs/')),
      [],
    );
    replica.close();
    for (const path of [`${policies}/theirs`, `${workloads}/theirs`]) await server.call('DELETE', path);
    replica = startReplica(server, alwaysHeld);
  });

  await t.test('an object of a kind without such a condition, until it is corrected', async () => {
    const entry = { apiVersion: 'networking.istio.io/v1', kind: 'WorkloadEntry', metadata: { name: 'vm' } };
    await server.create(workloads, { ...entry, spec: { address: 'bad' } });
    await says(`${workloads}/vm`, 'culvert.io/Accepted False Invalid');
    // Corrected while nobody looks: the next one to write takes it back.
    replica.close();
    await server.call('PATCH', `${workloads}/vm`, { spec: { address: '10.0.0.1' } });
    replica = startReplica(server, alwaysHeld);
    await says(`${workloads}/vm`);
  });

  await t.test('hosts of a ServiceEntry are given addresses', async () => {
    await server.create(entries, {
      ...{ apiVersion: 'networking.istio.io/v1', kind: 'ServiceEntry', metadata: { name: 'ext' } },
      spec: { hosts: ['a.example', 'b.example'], ports: [{ number: 80, name: 'http' }], resolution: 'DNS' },
    });
    await eventually('addresses', async () => {
      const { addresses } = fields((await server.call('GET', `${entries}/ext`)).body.status);
      assert.deepEqual(addresses, [
        { host: 'a.example', value: '240.240.0.1' },
        { host: 'a.example', value: '2001:2::1' },
        { host: 'b.example', value: '240.240.0.2' },
        { host: 'b.example', value: '2001:2::2' },
      ]);
      return true;
    });
  });

  await t.test('nothing is written again that is there already', async () => {
    // What this replica has to say of what was there when it started.
    await eventually('it has said', () => replica.writes.includes(`${policies}/once/status`));
    const before = replica.writes.length;
    await server.call('PATCH', `${policies}/good`, { metadata: { labels: { touched: 'yes' } } });
    await new Promise((resolve) => setTimeout(resolve, 1500));
    assert.equal(replica.writes.length, before);
  });

  await t.test('who does not hold the lease writes nothing, and all of it once he does', async () => {
    replica.close();
    let isHeld = false;
    let tell: (held: boolean) => void = () => {};
    const lease: Lease = {
      held: () => isHeld,
      onChange: (listener) => {
        tell = listener;
      },
      async close() {},
    };
    replica = startReplica(server, lease);
    await server.create(policies, { ...policy, metadata: { name: 'later' }, spec: { rules: [{}] } });
    await new Promise((resolve) => setTimeout(resolve, 1500));
    assert.deepEqual(replica.writes, []);
    assert.deepEqual(await conditionsOf(`${policies}/later`), []);
    isHeld = true;
    tell(true);
    await says(`${policies}/later`, 'ZtunnelAccepted True Accepted');
  });
});
