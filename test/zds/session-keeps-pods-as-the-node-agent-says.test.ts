import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CulvertError } from '../../src/errors.ts';
import type { NetnsHandle } from '../../src/netns/handle.ts';
import { ANSWER_MS, createZdsSession, type Outcome, RETRY_MS, type Readiness } from '../../src/zds/session.ts';
import type { PodInfo, PodManager, RunningPod, WorkloadRequest } from '../../src/zds/types.ts';
import { manualTimers, settled } from '../support/timers.ts';

const ack: Outcome = { kind: 'ack' };
const snapshotSent: WorkloadRequest = { kind: 'snapshot-sent' };
const keep = (uid: string): WorkloadRequest => ({ kind: 'keep', uid });
const del = (uid: string): WorkloadRequest => ({ kind: 'del', uid });
const add = (uid: string, serviceAccount = 'sa'): WorkloadRequest => ({
  kind: 'add',
  uid,
  workload: { name: `pod-${uid}`, namespace: 'ns', serviceAccount },
});

/** A session over a data plane that does what the test says, and a count of namespace handles that are open. */
function bench() {
  const timers = manualTimers();
  const running = new Map<string, RunningPod & { netnsHandle: NetnsHandle }>();
  const events: string[] = [];
  const readiness: Readiness[] = [];
  let open = 0;
  /** What a start has to wait for, or fails with, by uid. */
  const behaviour = new Map<string, Error | Promise<void>>();
  const pods: PodManager = {
    async start(pod: PodInfo, netns: NetnsHandle) {
      events.push(`start ${pod.uid}/${pod.serviceAccount} in ${netns.key}`);
      const how = behaviour.get(pod.uid);
      if (how instanceof Error) throw how;
      await how;
      running.set(pod.uid, { pod, netns: netns.key, netnsHandle: netns });
    },
    stop(uid) {
      events.push(`stop ${uid}`);
      running.get(uid)!.netnsHandle.close();
      running.delete(uid);
    },
    running: () => running,
  };
  const session = createZdsSession({
    pods,
    timers,
    log: { info() {}, warn() {} },
    onReadiness: (now) => readiness.push(now),
  });
  const netns = (key: string): NetnsHandle => {
    open++;
    let closed = false;
    return {
      fd: -1,
      key,
      duplicate: () => netns(key),
      close() {
        if (!closed) open--;
        closed = true;
      },
    };
  };
  return {
    session,
    timers,
    events,
    readiness,
    behaviour,
    running: () => [...running.keys()],
    openHandles: () => open,
    netns,
    receive: (request: WorkloadRequest, key?: string) =>
      session.receive(request, key === undefined ? null : netns(key)),
    /** A new connection whose snapshot holds these pods. */
    async connect(...uids: string[]) {
      session.connected();
      for (const uid of uids) await session.receive(add(uid), netns(`ns-${uid}`));
      await session.receive(snapshotSent, null);
    },
  };
}

const inUse = new Error('address in use');

test('a snapshot makes the agent ready, and its pods run', async () => {
  const { session, receive, running, readiness } = bench();
  session.connected();
  assert.deepEqual(await receive(add('a'), 'ns-a'), ack);
  assert.deepEqual(await receive(add('b'), 'ns-b'), ack);
  assert.equal(session.readiness(), 'snapshot-pending');
  assert.deepEqual(await receive(snapshotSent), ack);
  assert.deepEqual(running(), ['a', 'b']);
  assert.deepEqual(readiness, ['snapshot-pending', 'ready']);
});

test('adding a pod twice changes nothing and keeps one handle', async () => {
  const { receive, connect, events, openHandles } = bench();
  await connect('a');
  assert.deepEqual(await receive(add('a'), 'ns-a'), ack);
  assert.deepEqual(events, ['start a/sa in ns-a']);
  assert.equal(openHandles(), 1);
});

test('a pod in a new namespace is started anew', async () => {
  const { receive, connect, events, openHandles } = bench();
  await connect('a');
  assert.deepEqual(await receive(add('a'), 'ns-new'), ack);
  assert.deepEqual(events, ['start a/sa in ns-a', 'stop a', 'start a/sa in ns-new']);
  assert.equal(openHandles(), 1);
});

test('a pod under a new service account is started anew, because it has another identity', async () => {
  const { receive, connect, events } = bench();
  await connect('a');
  assert.deepEqual(await receive(add('a', 'other'), 'ns-a'), ack);
  assert.deepEqual(events, ['start a/sa in ns-a', 'stop a', 'start a/other in ns-a']);
});

test('a pod that cannot start is refused, retried every 5 s, and keeps the agent from being ready', async () => {
  const { session, receive, connect, behaviour, timers, events, readiness } = bench();
  await connect();
  behaviour.set('a', inUse);
  assert.deepEqual(await receive(add('a'), 'ns-a'), { kind: 'nack', text: 'failure to start proxy : address in use' });
  assert.equal(session.readiness(), 'pods-pending');
  assert.deepEqual(
    session.pending().map(({ uid }) => uid),
    ['a'],
  );
  await timers.advance(RETRY_MS - 1);
  assert.equal(events.length, 1);
  await timers.advance(1);
  assert.equal(events.length, 2);
  assert.equal(session.readiness(), 'pods-pending');
  behaviour.delete('a');
  await timers.advance(RETRY_MS);
  assert.equal(events.length, 3);
  assert.equal(session.readiness(), 'ready');
  assert.deepEqual(timers.pending(), []);
  assert.equal(session.failedStarts(), 2);
  assert.deepEqual(readiness, ['snapshot-pending', 'ready', 'pods-pending', 'ready']);
});

test('a pod that fails does not keep its neighbours from starting', async () => {
  const { receive, connect, behaviour, running } = bench();
  await connect();
  behaviour.set('bad', inUse);
  await receive(add('bad'), 'ns-bad');
  assert.deepEqual(await receive(add('good'), 'ns-good'), ack);
  assert.deepEqual(running(), ['good']);
});

test('adding a pod that is being retried replaces what was to be retried', async () => {
  const { receive, connect, behaviour, timers, events, openHandles } = bench();
  await connect();
  behaviour.set('a', inUse);
  await receive(add('a'), 'ns-old');
  behaviour.delete('a');
  assert.deepEqual(await receive(add('a'), 'ns-new'), ack);
  await timers.advance(RETRY_MS);
  assert.deepEqual(events, ['start a/sa in ns-old', 'start a/sa in ns-new']);
  assert.equal(openHandles(), 1);
});

test('deleting a pod that is being retried ends that', async () => {
  const { session, receive, connect, behaviour, timers, events, openHandles } = bench();
  await connect();
  behaviour.set('a', inUse);
  await receive(add('a'), 'ns-a');
  assert.deepEqual(await receive(del('a')), ack);
  assert.equal(session.readiness(), 'ready');
  await timers.advance(RETRY_MS);
  assert.deepEqual(events, ['start a/sa in ns-a']);
  assert.equal(openHandles(), 0);
});

test('a pod deleted during the snapshot runs until the snapshot is complete', async () => {
  const { session, receive, connect, running } = bench();
  await connect('a');
  session.connected();
  await receive(add('a'), 'ns-a');
  assert.deepEqual(await receive(del('a')), ack);
  assert.deepEqual(running(), ['a']);
  await receive(snapshotSent);
  assert.deepEqual(running(), []);
});

test('a pod deleted and added again during the snapshot goes on', async () => {
  const { session, receive, connect, events } = bench();
  await connect('a');
  session.connected();
  await receive(del('a'));
  await receive(add('a'), 'ns-a');
  await receive(snapshotSent);
  assert.deepEqual(events, ['start a/sa in ns-a']);
});

test('a pod deleted and added again after the snapshot is started again', async () => {
  const { receive, connect, events, openHandles } = bench();
  await connect('a');
  assert.deepEqual(await receive(del('a')), ack);
  assert.equal(openHandles(), 0);
  assert.deepEqual(await receive(add('a'), 'ns-a'), ack);
  assert.deepEqual(events, ['start a/sa in ns-a', 'stop a', 'start a/sa in ns-a']);
});

test('deleting a pod that is unknown is fine', async () => {
  const { receive, connect } = bench();
  await connect();
  assert.deepEqual(await receive(del('nobody')), ack);
});

test('pods run on without a connection, and those that the next snapshot keeps or adds survive it', async () => {
  const { session, receive, connect, running, events } = bench();
  await connect('kept', 'added', 'forgotten');
  session.disconnected();
  assert.equal(session.readiness(), 'disconnected');
  assert.deepEqual(running(), ['kept', 'added', 'forgotten']);
  session.connected();
  assert.deepEqual(await receive(keep('kept')), ack);
  assert.deepEqual(await receive(keep('never heard of')), ack);
  assert.deepEqual(await receive(add('added'), 'ns-added'), ack);
  await receive(snapshotSent);
  assert.deepEqual(running(), ['kept', 'added']);
  assert.deepEqual(events.slice(3), ['stop forgotten']);
});

test('a pod that could not start is still retried after a reconnection that only keeps it', async () => {
  const { session, receive, connect, behaviour, timers, running, openHandles } = bench();
  await connect();
  behaviour.set('a', inUse);
  behaviour.set('b', inUse);
  await receive(add('a'), 'ns-a');
  await receive(add('b'), 'ns-b');
  session.disconnected();
  session.connected();
  await receive(keep('a'));
  await receive(snapshotSent);
  behaviour.clear();
  await timers.advance(RETRY_MS);
  assert.deepEqual(running(), ['a']);
  assert.equal(openHandles(), 1);
});

const violations: [
  name: string,
  before: WorkloadRequest[],
  request: WorkloadRequest,
  netns: string | undefined,
  text: string,
][] = [
  [
    'an add without workload_info',
    [],
    { kind: 'add', uid: 'a', workload: null },
    'ns-a',
    'workload_info is required but not present',
  ],
  ['an add without a uid', [], add(''), 'ns-a', 'uid is required but not present'],
  ['an add without a namespace', [], add('a'), undefined, 'namespace is required but not present'],
  ['a keep after the snapshot', [snapshotSent], keep('a'), undefined, 'pod keep received after snapshot'],
  ['a second snapshot', [snapshotSent], snapshotSent, undefined, 'pod snapshot received already'],
];

for (const [name, before, request, netns, text] of violations) {
  test(`${name} breaks the protocol, and harms no pod`, async () => {
    const { session, receive, connect, running, openHandles } = bench();
    await connect('neighbour');
    session.connected();
    await receive(keep('neighbour'));
    for (const earlier of before) await receive(earlier);
    assert.deepEqual(await receive(request, netns), { kind: 'violation', text });
    assert.deepEqual(running(), ['neighbour']);
    assert.equal(openHandles(), 1);
  });
}

test('a descriptor that was refused is said to the node agent, and a pod that runs goes on', async () => {
  const { session, connect, running } = bench();
  await connect('a');
  session.connected();
  const refused = new CulvertError('NETNS_INVALID', 'descriptor 7 is not a network namespace');
  assert.deepEqual(await session.receive(add('a'), refused), {
    kind: 'nack',
    text: 'failure to start proxy : descriptor 7 is not a network namespace',
  });
  await session.receive(snapshotSent, null);
  assert.deepEqual(running(), ['a']);
  assert.equal(session.readiness(), 'ready');
});

test('a start that takes its time is answered without it, and counts as pending until it is done', async () => {
  const { session, receive, connect, behaviour, timers, running } = bench();
  await connect();
  const slow = Promise.withResolvers<void>();
  behaviour.set('a', slow.promise);
  const answer = receive(add('a'), 'ns-a');
  await settled();
  assert.equal(session.readiness(), 'ready', 'a start under way is no reason to take the agent out of service');
  await timers.advance(ANSWER_MS);
  assert.deepEqual(await answer, { kind: 'nack', text: 'failure to start proxy : not done after 4 s, going on' });
  assert.equal(session.readiness(), 'pods-pending');
  slow.resolve();
  await settled();
  assert.deepEqual(running(), ['a']);
  assert.equal(session.readiness(), 'ready');
});

test('adding a pod again while its start is under way waits for that start', async () => {
  const { receive, connect, behaviour, timers, events, openHandles } = bench();
  await connect();
  const slow = Promise.withResolvers<void>();
  behaviour.set('a', slow.promise);
  const first = receive(add('a'), 'ns-a');
  await settled();
  await timers.advance(ANSWER_MS);
  await first;
  const second = receive(add('a'), 'ns-a');
  await settled();
  slow.resolve();
  assert.deepEqual(await second, ack);
  assert.deepEqual(events, ['start a/sa in ns-a']);
  assert.equal(openHandles(), 1);
});

test('a pod deleted or replaced while its start is under way is stopped when that is done', async () => {
  for (const then of ['delete', 'replace'] as const) {
    const { receive, connect, behaviour, timers, events, openHandles } = bench();
    await connect();
    const slow = Promise.withResolvers<void>();
    behaviour.set('a', slow.promise);
    const first = receive(add('a'), 'ns-a');
    await settled();
    await timers.advance(ANSWER_MS);
    await first;
    const next = then === 'delete' ? receive(del('a')) : receive(add('a'), 'ns-new');
    await settled();
    slow.resolve();
    assert.deepEqual(await next, ack);
    await settled();
    const replaced = then === 'replace' ? ['start a/sa in ns-new'] : [];
    assert.deepEqual(events, ['start a/sa in ns-a', 'stop a', ...replaced]);
    assert.equal(openHandles(), replaced.length);
  }
});

test('requests are handled in the order in which they came', async () => {
  const { receive, connect, events } = bench();
  await connect();
  await Promise.all([receive(add('a'), 'ns-a'), receive(del('a')), receive(add('a'), 'ns-b'), receive(del('a'))]);
  assert.deepEqual(events, ['start a/sa in ns-a', 'stop a', 'start a/sa in ns-b', 'stop a']);
});

test('a request that waits for its turn while its connection goes is void', async () => {
  const { session, receive, connect, behaviour, running, openHandles } = bench();
  await connect('a');
  const slow = Promise.withResolvers<void>();
  behaviour.set('slow', slow.promise);
  session.connected();
  const starting = receive(add('slow'), 'ns-slow');
  // With nothing mentioned but `slow`, this would stop `a`.
  const stale = [receive(snapshotSent), receive(add('b'), 'ns-b')];
  await settled();
  session.connected();
  slow.resolve();
  await starting;
  for (const outcome of await Promise.all(stale)) assert.equal(outcome.kind, 'violation');
  assert.deepEqual(running(), ['a', 'slow']);
  assert.equal(openHandles(), 2);
});

test('closing gives up on what does not run, and leaves what does', async () => {
  const { session, receive, connect, behaviour, timers, running, openHandles } = bench();
  await connect('a');
  behaviour.set('b', inUse);
  await receive(add('b'), 'ns-b');
  session.close();
  assert.deepEqual(timers.pending(), []);
  assert.deepEqual(running(), ['a']);
  assert.equal(openHandles(), 1);
});
