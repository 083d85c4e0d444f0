import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { type Lease, startLease } from '../../src/control/lease.ts';
import { createKubeApi } from '../../src/kube/api.ts';
import { createLogger } from '../../src/log/logger.ts';
import { type ApiServer, noApiServer, startApiServer } from '../cni/support/api-server.ts';
import { eventually } from '../cni/support/eventually.ts';

const PATH = '/apis/coordination.k8s.io/v1/namespaces/default/leases/culvert-control';
const silent = createLogger({ format: 'plain', level: 'off', write() {} });

function start(t: TestContext, server: ApiServer, holder: string): Lease {
  const { port, serviceAccountDir } = server;
  const api = createKubeApi({ host: '127.0.0.1', port, serviceAccountDir, timeoutMs: 2000 });
  t.after(() => api.close());
  const options = { api, namespace: 'default', name: 'culvert-control', log: silent, durationMs: 3000 };
  const lease = startLease({ ...options, holder });
  t.after(() => lease.close());
  return lease;
}

test('a lease has one holder at a time', { skip: noApiServer }, async (t) => {
  const server = await startApiServer(t);
  const all = ['a', 'b', 'c'].map((holder) => start(t, server, holder));
  const holders = () => all.filter((lease) => lease.held()).length;
  let most = 0;
  const watch = setInterval(() => {
    most = Math.max(most, holders());
  }, 5);
  t.after(() => clearInterval(watch));

  await t.test('of several that start together one gets it', async () => {
    await eventually('there is a holder', () => holders() === 1);
    const { body } = await server.call('GET', PATH);
    const spec = body.spec as { holderIdentity: string; leaseDurationSeconds: number };
    assert.ok(all['abc'.indexOf(spec.holderIdentity)]!.held());
    assert.equal(spec.leaseDurationSeconds, 3);
    await delay(3500);
    assert.equal(holders(), 1, 'it is renewed');
  });

  await t.test('one that is given back goes to another at once', async () => {
    const [holder] = all.filter((lease) => lease.held());
    const changes: boolean[] = [];
    holder!.onChange((held) => changes.push(held));
    await holder!.close();
    assert.equal(holder!.held(), false);
    assert.deepEqual(changes, [false]);
    await eventually('there is another', () => holders() === 1, 10_000);
  });

  await t.test('a holder that cannot reach the API server stops by its own clock', async () => {
    const [holder] = all.filter((lease) => lease.held());
    const lost = new Promise<boolean>((resolve) => holder!.onChange(resolve));
    await server.freeze();
    assert.equal(await lost, false);
    assert.equal(holders(), 0);
    server.thaw();
    await eventually('there is a holder again', () => holders() === 1);
  });

  await t.test('one that another holds is left alone until it has not been renewed for its time', async () => {
    const stranger = {
      ...{ holderIdentity: 'stranger', leaseDurationSeconds: 3, renewTime: '2020-01-01T00:00:00.000000Z' },
      ...{ acquireTime: '2020-01-01T00:00:00.000000Z', leaseTransitions: 7 },
    };
    await server.call('PATCH', PATH, { spec: stranger });
    await eventually('nobody holds it', () => holders() === 0);
    // The stranger's clock is years behind; that it renews is all that counts.
    for (let round = 0; round < 4; round++) {
      await delay(1000);
      await server.call('PATCH', PATH, { metadata: { annotations: { round: `${round}` } } });
      assert.equal(holders(), 0);
    }
    await eventually('it is taken when the stranger is silent', () => holders() === 1);
    const { body } = await server.call('GET', PATH);
    assert.equal((body.spec as { leaseTransitions: number }).leaseTransitions, 8);
  });

  assert.equal(most, 1, 'there never were two');
});
