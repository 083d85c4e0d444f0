import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { type Lease, startLease } from '../../src/control/lease.ts';
import { createKubeApi } from '../../src/kube/api.ts';
import { createLogger } from '../../src/log/logger.ts';
import { type ApiServer, noApiServer, startApiServer } from '../cni/support/api-server.ts';
import { eventually } from '../cni/support/eventually.ts';

const PATH = '/apis/coordination.k8s.io/v1/namespaces/default/leases/culvert-control';
interface LeaseSpec {
  readonly holderIdentity: string;
  readonly leaseDurationSeconds: number;
  readonly renewTime: string;
  readonly leaseTransitions: number;
}

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

  const written = async () => (await server.call('GET', PATH)).body.spec as LeaseSpec;
  const theHolder = async () => {
    await eventually('there is a holder', () => holders() === 1);
    return all.find((lease) => lease.held())!;
  };

  await t.test('of several that start together one gets it, and renews it', async () => {
    await eventually('the one that is written down holds it', async () => {
      const { holderIdentity } = await written();
      return holders() === 1 && all['abc'.indexOf(holderIdentity)]!.held();
    });
    let first = await written();
    assert.equal(first.leaseDurationSeconds, 3);
    await eventually('one holds it for longer than it lasts', async () => {
      const now = await written();
      // Another may have it when this machine stood still for as long.
      if (now.holderIdentity !== first.holderIdentity) first = now;
      return Date.parse(now.renewTime) - Date.parse(first.renewTime) > 3500;
    });
  });

  await t.test('one that is given back goes to another at once', async () => {
    const holder = await theHolder();
    const changes: boolean[] = [];
    holder.onChange((held) => changes.push(held));
    await holder.close();
    assert.equal(holder.held(), false);
    assert.deepEqual(changes, [false]);
    await eventually('there is another', () => holders() === 1);
  });

  await t.test('a holder that cannot reach the API server stops by its own clock', async () => {
    const holder = await theHolder();
    const lost = new Promise<boolean>((resolve) => holder.onChange(resolve));
    await server.freeze();
    assert.equal(await lost, false);
    // Should another have got it in the last moment, it does not keep it either.
    await eventually('nobody holds it', () => holders() === 0);
    server.thaw();
    await eventually('there is a holder again', () => holders() === 1);
  });

  await t.test('one that another holds is left alone until it has not been renewed for its time', async () => {
    const stranger = {
      ...{ holderIdentity: 'stranger', leaseDurationSeconds: 3, renewTime: '2020-01-01T00:00:00.000000Z' },
      ...{ acquireTime: '2020-01-01T00:00:00.000000Z', leaseTransitions: 7 },
    };
    let renewed = 0;
    // The stranger's clock is years behind; that it renews is all that counts.
    for (let round = 0; round < 5; round++) {
      const before = renewed;
      renewed = performance.now();
      if (round === 0) {
        await server.call('PATCH', PATH, { spec: stranger });
        await eventually('nobody holds it', () => holders() === 0);
      } else {
        await server.call('PATCH', PATH, { metadata: { annotations: { round: `${round}` } } });
      }
      if (holders() > 0) {
        assert.ok(performance.now() - before > 3000, 'it was taken from one that renews it');
        // This machine stood still for so long that it was right to take it: once more from the start.
        round = -1;
      } else {
        await delay(1000);
      }
    }
    await eventually('it is taken when the stranger is silent', () => holders() === 1);
    assert.equal((await written()).leaseTransitions, 8);
  });

  assert.equal(most, 1, 'there never were two');
});
