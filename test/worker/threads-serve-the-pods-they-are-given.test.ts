import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { createLogger } from '../../src/log/logger.ts';
import type { NetnsHandle } from '../../src/netns/handle.ts';
import type { InboundPlan, OutboundPlan } from '../../src/routing/plan.ts';
import type { PlanQuery } from '../../src/worker/messages.ts';
import { Supervisor, type SupervisorOptions } from '../../src/worker/supervisor.ts';
import { listenEcho } from '../support/pod-sockets.ts';
import { type Pod, podNetwork } from '../support/pods.ts';
import { LABELS, POD, SERVED, SETTINGS, until } from './support/plane-under-test.ts';

/** Plain text to where the client wants to go. */
function passOn(query: PlanQuery): OutboundPlan | InboundPlan {
  if (query.kind === 'outbound' || query.query.kind !== 'plaintext') throw new Error('only plain text comes in here');
  return {
    kind: 'deliver',
    target: query.query.originalDestination,
    source: null,
    destination: LABELS,
    service: null,
    appTunnel: null,
  };
}

async function supervisorUnderTest(t: TestContext, options: Partial<SupervisorOptions>) {
  let text = '';
  const supervisor = new Supervisor({
    threads: 1,
    settings: { ...SETTINGS, ipv6: true },
    revocations: null,
    log: createLogger({ format: 'plain', level: 'info', write: (line) => (text += line) }),
    logFormat: 'plain',
    plan: async (query, answer) => answer({ plan: passOn(query), reads: new Set() }),
    certificate: () => Promise.reject(new Error('no certificates here')),
    meshState: () => SERVED,
    onPods() {},
    onThreadGone() {},
    ...options,
  });
  await supervisor.launch();
  t.after(() => supervisor.drain(0));
  return { supervisor, log: () => text };
}

const handleOf = (pod: Pod): NetnsHandle => pod.netns.duplicate();

test('the control thread knows a pod as soon as a thread may ask for its plans', async (t) => {
  const network = await podNetwork(t);
  const pod = await network.addPod('pod');
  const { supervisor } = await supervisorUnderTest(t, { threads: 2 });
  const starting = supervisor.start(POD, handleOf(pod));
  await Promise.resolve();
  assert.deepEqual(supervisor.podOf(POD.uid), POD);
  assert.deepEqual([...supervisor.running().keys()], []);
  await starting;
  assert.deepEqual([...supervisor.running().keys()], [POD.uid]);
  supervisor.stop(POD.uid);
  assert.equal(supervisor.podOf(POD.uid), null);
});

test('a pod that cannot start leaves nothing behind on any thread', async (t) => {
  const network = await podNetwork(t);
  const pod = await network.addPod('pod');
  const taken = await listenEcho(pod, 15006);
  const { supervisor } = await supervisorUnderTest(t, { threads: 2 });
  await assert.rejects(supervisor.start(POD, handleOf(pod)), {
    code: 'POD_START_FAILED',
    message: /EADDRINUSE|in use/,
  });
  assert.equal(supervisor.podOf(POD.uid), null);
  taken.close();
  // The ports that could be bound at first are free again.
  const snapshots = await supervisor.snapshots();
  assert.deepEqual([...snapshots.values()], [[], []]);
  await supervisor.start(POD, handleOf(pod));
});

test('threads that crash get all pods back, those that were being started too', async (t) => {
  const network = await podNetwork(t);
  const [first, second] = [await network.addPod('first'), await network.addPod('second')];
  const gone: string[] = [];
  const bothGone = Promise.withResolvers<void>();
  const { supervisor, log } = await supervisorUnderTest(t, {
    threads: 2,
    onThreadGone(name) {
      if (gone.push(name) === 2) bothGone.resolve();
    },
  });
  await supervisor.start(POD, handleOf(first));
  // No thread survives a state that is none.
  supervisor.update(POD.uid, null as never);
  supervisor.update(POD.uid, SERVED);
  const other = { ...POD, uid: 'uid-2' };
  await supervisor.start(other, handleOf(second));
  await bothGone.promise;
  assert.deepEqual(gone.sort(), ['worker-1', 'worker-2']);
  await until('the new threads do not serve all pods', async () => {
    const snapshots = await supervisor.snapshots();
    return [...snapshots.values()].every(
      (pods) => pods.length === 2 && pods.every(({ listeners }) => listeners.length === 3),
    );
  });
  assert.match(log(), /a data-plane thread ended and is started again/);
});
