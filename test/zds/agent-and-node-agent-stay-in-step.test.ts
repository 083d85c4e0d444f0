import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { test } from 'node:test';
import { closeFd, listenTcp } from '../../native/netns.ts';
import { connectSeqPacket, listenSeqPacket } from '../../native/seqpacket.ts';
import { adoptNetns, openNetnsHandle } from '../../src/netns/handle.ts';
import { encodeHello } from '../../src/zds/codec.ts';
import { startZdsServer } from '../../src/zds/server.ts';
import { RETRY_MS } from '../../src/zds/session.ts';
import { assertNothingOpened, openDescriptors } from '../support/descriptors.ts';
import { agentListener } from '../support/tcp.ts';
import { manualTimers, settled } from '../support/timers.ts';
import {
  ALL_PORTS,
  enrol,
  info,
  listening,
  nodeAgent,
  quiet,
  setUp,
  startAgent,
  startAgentOver,
} from './agent-under-test.ts';

test('enrolled pods are served, and are served on when the node agent ends', async (t) => {
  const { network, path } = await setUp(t);
  const pod = await network.addPod('pod');
  const server = nodeAgent(t, path);
  await assert.rejects(enrol(server, pod), { code: 'ZDS_NO_AGENT' });
  const agent = startAgent(t, path);
  await agent.when('ready');
  assert.deepEqual(await listening(pod), ALL_PORTS);
  server.close();
  await agent.when('disconnected');
  assert.deepEqual(await listening(pod), ALL_PORTS);
});

test('a pod that is added later is served when its addition is acknowledged, and no more when it is removed', async (t) => {
  const { network, path } = await setUp(t);
  const pod = await network.addPod('pod');
  const server = nodeAgent(t, path);
  startAgent(t, path);
  await server.whenAgent();
  await enrol(server, pod);
  assert.deepEqual(await listening(pod), ALL_PORTS);
  await server.remove(info(pod).uid);
  assert.deepEqual(await listening(pod), []);
});

test('a port that is taken in a pod is refused, retried, and leaves the neighbour alone', async (t) => {
  const { network, path } = await setUp(t);
  const taken = await network.addPod('taken');
  const free = await network.addPod('free');
  const squatter = listenTcp(taken.netns.fd, '::', 15006, { ...agentListener, reusePort: false });
  const server = nodeAgent(t, path);
  const agent = startAgent(t, path);
  await agent.when('ready');
  await assert.rejects(enrol(server, taken), {
    code: 'ZDS_NACK',
    message: 'failure to start proxy : cannot listen on [::]:15006: bind: Address already in use',
  });
  assert.equal(agent.session.readiness(), 'pods-pending');
  await enrol(server, free);
  assert.deepEqual(await listening(free), ALL_PORTS);
  assert.deepEqual(await listening(taken), ['15006'], 'nothing is left of the start that failed');
  closeFd(squatter.fd);
  await agent.timers.advance(RETRY_MS);
  await agent.when('ready');
  assert.deepEqual(await listening(taken), ALL_PORTS);
});

test('pods that are missing from the snapshot of the next connection are stopped', async (t) => {
  const { network, path } = await setUp(t);
  const stays = await network.addPod('stays');
  const kept = await network.addPod('kept');
  const goes = await network.addPod('goes');
  const first = nodeAgent(t, path);
  const agent = startAgent(t, path);
  await agent.when('ready');
  for (const pod of [stays, kept, goes]) await enrol(first, pod);
  first.close();
  await agent.when('disconnected');
  const second = nodeAgent(t, path);
  await assert.rejects(enrol(second, stays), { code: 'ZDS_NO_AGENT' });
  // The new node agent knows this one by name only.
  await assert.rejects(second.add(info(kept), null), { code: 'ZDS_NO_AGENT' });
  await agent.timers.advance(1000);
  await agent.when('ready');
  assert.deepEqual(await listening(stays), ALL_PORTS);
  assert.deepEqual(await listening(kept), ALL_PORTS);
  assert.deepEqual(await listening(goes), []);
});

test('a pod whose namespace is replaced is served in the new one', async (t) => {
  const { network, path } = await setUp(t);
  const old = await network.addPod('old');
  const fresh = await network.addPod('fresh');
  const server = nodeAgent(t, path);
  startAgent(t, path);
  await server.whenAgent();
  await enrol(server, old);
  await server.add(info(old), fresh.netns.duplicate());
  assert.deepEqual(await listening(old), []);
  assert.deepEqual(await listening(fresh), ALL_PORTS);
});

test('a namespace that has no name any more is served until it is deleted', async (t) => {
  const { network, path } = await setUp(t);
  const gone = await network.addPod('gone');
  const neighbour = await network.addPod('neighbour');
  const server = nodeAgent(t, path);
  startAgent(t, path);
  await server.whenAgent();
  const handle = gone.netns.duplicate();
  await network.removePod(gone);
  assert.throws(() => openNetnsHandle(gone.netnsPath), { code: 'NETNS_UNAVAILABLE' });
  await server.add(info(gone), handle);
  await enrol(server, neighbour);
  await server.remove(info(gone).uid);
  assert.deepEqual(await listening(neighbour), ALL_PORTS);
});

test('every agent is told of a removal, the latest one of an addition', async (t) => {
  const { network, path } = await setUp(t);
  const pod = await network.addPod('pod');
  const later = await network.addPod('later');
  const server = nodeAgent(t, path);
  const first = startAgent(t, path);
  await first.when('ready');
  await enrol(server, pod);
  const second = startAgent(t, path);
  await second.when('ready');
  await enrol(server, later);
  assert.deepEqual([...first.pods.running().keys()], ['uid-pod']);
  assert.deepEqual([...second.pods.running().keys()], ['uid-pod', 'uid-later']);
  await server.remove('uid-pod');
  assert.deepEqual([...first.pods.running().keys()], []);
  assert.deepEqual([...second.pods.running().keys()], ['uid-later']);
});

test('an agent that leaves before its snapshot begins does not stand in the way of the one that stays', async (t) => {
  const { network, path } = await setUp(t);
  const pod = await network.addPod('pod');
  const ready = Promise.withResolvers<void>();
  const heard = new EventEmitter();
  const log = { info: (_: string, message: string) => heard.emit(message), warn() {} };
  const server = startZdsServer({ path, log, ready: ready.promise });
  t.after(() => server.close());
  const hello = once(heard, 'agent connected');
  const stays = startAgent(t, path);
  await hello;
  const secondHello = once(heard, 'agent connected');
  const leaves = connectSeqPacket(path);
  leaves.send(encodeHello(), []);
  await secondHello;
  const gone = once(heard, 'agent disconnected');
  leaves.close();
  await gone;
  ready.resolve();
  await stays.when('ready');
  await enrol(server, pod);
  assert.deepEqual([...stays.pods.running().keys()], ['uid-pod']);
});

test('an agent that does not answer is dropped after its time', async (t) => {
  const { path } = await setUp(t);
  const timers = manualTimers();
  const server = startZdsServer({ path, log: quiet, timers });
  t.after(() => server.close());
  const silent = connectSeqPacket(path);
  const ended = Promise.withResolvers<string | null>();
  silent.start(() => {}, ended.resolve);
  while (timers.pending().length === 0) await settled();
  await timers.advance(5000);
  assert.equal(await ended.promise, null);
  assert.equal(server.agents(), 0);
});

test('the text of a refusal fits the buffer of the node agent', async (t) => {
  const { network, path } = await setUp(t);
  const pod = await network.addPod('pod');
  const server = nodeAgent(t, path);
  startAgentOver(t, path, {
    start: () => Promise.reject(new Error('é'.repeat(5000))),
    stop() {},
    running: () => new Map(),
  });
  await server.whenAgent();
  await assert.rejects(enrol(server, pod), (error: Error & { code: string }) => {
    assert.equal(error.code, 'ZDS_NACK');
    assert.match(error.message, /^failure to start proxy : é+…$/);
    assert.ok(Buffer.byteLength(error.message) < 1000);
    return true;
  });
});

test('a node agent that is not there is tried again, each time after twice the delay, up to 15 s', async (t) => {
  const { path } = await setUp(t);
  const { timers, client } = startAgent(t, path);
  const delays: number[] = [];
  for (let attempt = 0; attempt < 13; attempt++) {
    const [delay] = timers.pending();
    delays.push(delay!);
    await timers.advance(delay!);
  }
  assert.deepEqual(delays, [20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10240, 15000, 15000, 15000]);
  assert.equal(client.counters.connections, 0);
});

test('a node agent that accepts and hangs up is tried again with growing delays', async (t) => {
  const { path } = await setUp(t);
  const listener = listenSeqPacket(
    path,
    (connection) => connection.close(),
    () => {},
  );
  t.after(() => listener.close());
  const agent = startAgent(t, path);
  const delays: number[] = [];
  for (let attempt = 0; attempt < 5; attempt++) {
    while (agent.timers.pending().length === 0) await settled();
    const [delay] = agent.timers.pending();
    delays.push(delay!);
    await agent.timers.advance(delay!);
  }
  assert.deepEqual(delays, [20, 40, 80, 160, 320]);
});

test('closing the client ends reading and leaves the pods running', async (t) => {
  const { network, path } = await setUp(t);
  const pod = await network.addPod('pod');
  const server = nodeAgent(t, path);
  const agent = startAgent(t, path);
  await agent.when('ready');
  await enrol(server, pod);
  agent.client.close();
  await agent.when('disconnected');
  assert.deepEqual(agent.timers.pending(), []);
  assert.deepEqual(await listening(pod), ALL_PORTS);
});

test('a namespace given as a descriptor number belongs to whoever adopts it', async (t) => {
  const { network } = await setUp(t);
  const pod = await network.addPod('pod');
  const before = openDescriptors();
  adoptNetns(pod.netns.duplicate().fd).close();
  assertNothingOpened(before);
});
