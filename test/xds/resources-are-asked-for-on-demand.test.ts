import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { OutboundPlan } from '../../src/routing/plan.ts';
import { createPlanner } from '../../src/worker/planner.ts';
import { ADDRESS, type TestIstiod } from '../support/istiod.ts';
import {
  type ClientUnderTest,
  hostname,
  istiod,
  service,
  startClient,
  uid,
  workload,
} from './support/client-under-test.ts';
import { inTurns } from './support/turns.ts';

const client = { uid: 'u', name: 'client', namespace: 'demo', serviceAccount: 'client' };

/** Plans of a pod whose own workload came from the local file. */
function plansOf({ store, local, client: xds }: ClientUnderTest) {
  local.apply({ workloads: [localWorkload()] });
  const planner = createPlanner(store, '', () => client, xds.demand, {
    addresses: () => null,
    resolve: async () => {},
  });
  return async (ip: string): Promise<OutboundPlan> => {
    const { promise, resolve } = Promise.withResolvers<OutboundPlan>();
    await planner({ kind: 'outbound', uid: 'u', target: { ip, port: 80 }, peerIp: '10.0.0.9' }, ({ plan }) =>
      resolve(plan as OutboundPlan),
    );
    return promise;
  };
}

function localWorkload() {
  return {
    services: {},
    workload: {
      uid: 'local',
      name: 'client',
      namespace: 'demo',
      trustDomain: 'cluster.local',
      serviceAccount: 'client',
      network: '',
      workloadIps: ['10.0.0.9'],
      hostname: '',
      protocol: 'HBONE',
      networkMode: 'Standard',
      node: 'node-a',
      workloadName: 'client',
      workloadType: 'pod',
      canonicalName: '',
      canonicalRevision: '',
      clusterId: '',
      locality: { region: '', zone: '', subzone: '' },
      status: 'Healthy',
      capacity: 1,
      waypoint: null,
      networkGateway: null,
      applicationTunnel: null,
      nativeTunnel: false,
      authorizationPolicies: [],
    },
  } as const;
}

/** A client that has no time: it waits for an answer until the test lets time pass. */
async function onDemand(t: TestContext, fill: (server: TestIstiod) => void = () => {}) {
  const server = await istiod(t);
  fill(server);
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const subject = startClient(t, server, { options: { onDemand: true } });
  await subject.client.synced;
  return { server, subject };
}

function mesh(server: TestIstiod): void {
  const key = `demo/${hostname('s')}`;
  const ports = [80, 15008].map((port) => ({ servicePort: port, targetPort: port }));
  server.change({
    addresses: {
      [uid('a')]: workload('a', { services: { [key]: { ports } } }),
      [uid('b')]: workload('b', {
        addresses: [Buffer.of(10, 0, 0, 2)],
        waypoint: { hostname: { namespace: 'demo', hostname: hostname('s') }, hboneMtlsPort: 15008 },
      }),
      [uid('c')]: workload('c', { addresses: [Buffer.of(10, 0, 0, 3)] }),
      [key]: service('s', { ports }),
    },
  });
}

test('nothing is asked for until it is needed, and the agent is ready without it', async (t) => {
  const { server, subject } = await onDemand(t, mesh);
  const first = server.requests.find(({ typeUrl }) => typeUrl === ADDRESS)!;
  assert.deepEqual([first.subscribe, first.unsubscribe], [['*'], ['*']]);
  assert.equal(subject.store.workload(uid('a')), null);
  const plan = plansOf(subject);

  // By its address, which istiod answers with the name of the workload.
  const direct = await plan('10.0.0.3');
  assert.equal(direct.kind, 'forward');
  assert.notEqual(subject.store.workload(uid('c')), null);
  assert.equal(subject.store.workload(uid('a')), null);

  // A service comes with its workloads.
  const viaService = await plan('10.96.0.1');
  assert.equal(viaService.kind, 'forward');
  assert.notEqual(subject.store.workload(uid('a')), null);
});

test('what a plan needs on the way, such as a waypoint, is asked for too', async (t) => {
  const { subject } = await onDemand(t, mesh);
  const plan = await plansOf(subject)('10.0.0.2');
  assert.equal(plan.kind, 'forward');
  assert.notEqual(subject.store.service(`demo/${hostname('s')}`), null);
});

test('an address that the control plane does not know is planned for without it, after its answer', async (t) => {
  const { server, subject } = await onDemand(t);
  // An answer is not asked for again that is this young, however long the machine takes.
  const now = performance.now();
  t.mock.method(performance, 'now', () => now);
  const plan = plansOf(subject);
  assert.equal((await plan('192.0.2.1')).kind, 'forward');
  const asked = () => server.requests.filter(({ subscribe }) => subscribe.includes('/192.0.2.1')).length;
  assert.equal(asked(), 1);
  await plan('192.0.2.1');
  assert.equal(asked(), 1);
});

test('nobody waits for ever for an answer that does not come, nor one waiter for another', async (t) => {
  const { server, subject } = await onDemand(t);
  const plan = plansOf(subject);
  server.answers.addresses = false;
  const plans = Promise.all([plan('192.0.2.1'), plan('192.0.2.1'), plan('192.0.2.2')]);
  await inTurns('asked for', () => server.requests.some(({ subscribe }) => subscribe.includes('/192.0.2.2')));
  t.mock.timers.tick(2000);
  assert.deepEqual(
    (await plans).map(({ kind }) => kind),
    ['forward', 'forward', 'forward'],
  );
});

test('a demand outlives the stream it was made on, and what was demanded is kept in step by the next', async (t) => {
  const { server, subject } = await onDemand(t, mesh);
  const plan = plansOf(subject);
  await plan('10.0.0.3');
  server.answers.addresses = false;
  const waiting = plan('10.0.0.1');
  await inTurns('asked for', () => server.requests.some(({ subscribe }) => subscribe.includes('/10.0.0.1')));
  server.answers.addresses = true;
  server.endStreams();
  await inTurns('ended', () => !subject.client.isConnected());
  t.mock.timers.tick(50);
  await waiting;
  assert.notEqual(subject.store.workload(uid('a')), null);
  const again = server.requests.find(({ stream, typeUrl }) => stream === 1 && typeUrl === ADDRESS)!;
  assert.deepEqual(Object.keys(again.initialVersions), [uid('c')]);
  server.push({
    addresses: { [uid('c')]: workload('c', { addresses: [Buffer.of(10, 0, 0, 3)], canonicalName: 'new' }) },
  });
  await inTurns('in step', () => subject.store.workload(uid('c'))!.canonicalName === 'new');
});
