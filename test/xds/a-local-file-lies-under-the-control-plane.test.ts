import assert from 'node:assert/strict';
import { test } from 'node:test';
import { loadLocal } from '../../src/state/local-file.ts';
import type { LocalLayer } from '../../src/state/local-layer.ts';
import { hostname, istiod, policy, service, startClient, uid, workload } from './support/client-under-test.ts';

const key = `demo/${hostname('s')}`;

async function applyLocal(local: LocalLayer, canonicalName: string): Promise<void> {
  const text = {
    workloads: [uid('a'), uid('only-local')].map((name) => ({
      uid: name,
      name: 'a',
      namespace: 'demo',
      workloadIps: [],
      services: {},
      canonicalName,
    })),
    services: [{ name: 's', namespace: 'demo', hostname: hostname('s'), vips: [], ports: { 1: 2 } }],
    policies: [{ name: 'p', namespace: 'demo', scope: 'Global', action: 'Deny', dryRun: true, rules: [] }],
  };
  local.apply(await loadLocal(JSON.stringify(text), 'test'));
}

test('of one name the control plane’s resource is in force, and the file’s comes back when that goes', async (t) => {
  const server = await istiod(t);
  server.change({
    addresses: { [uid('a')]: workload('a', { canonicalName: 'remote' }), [key]: service('s') },
    policies: { 'demo/p': policy('p') },
  });
  const { client, store, local, until } = startClient(t, server);
  await applyLocal(local, 'local');
  await client.synced;
  const seen = () => ({
    workload: store.workload(uid('a'))?.canonicalName,
    ports: store.service(key)?.ports,
    dryRun: store.policy('demo/p')?.dryRun,
    onlyLocal: store.workload(uid('only-local'))?.canonicalName,
  });
  const remote = { workload: 'remote', ports: { 80: 8080 }, dryRun: false, onlyLocal: 'local' };
  assert.deepEqual(seen(), remote);

  // An edit of the file does not reach what the control plane says.
  await applyLocal(local, 'edited');
  assert.deepEqual(seen(), { ...remote, onlyLocal: 'edited' });

  server.push({ addresses: { [uid('a')]: null, [key]: null }, policies: { 'demo/p': null } });
  await until('uncovered', () => store.workload(uid('a'))?.canonicalName === 'edited' && seen().dryRun === true);
  assert.deepEqual(seen(), { workload: 'edited', ports: { 1: 2 }, dryRun: true, onlyLocal: 'edited' });
  assert.equal(client.hasAddress(uid('a')), false);

  // Now the file has a say again.
  local.apply({ removedWorkloads: [uid('a')] });
  assert.equal(store.workload(uid('a')), null);
});
