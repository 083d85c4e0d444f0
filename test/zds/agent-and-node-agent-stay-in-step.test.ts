import assert from 'node:assert/strict';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { closeFd, listenTcp } from '../../native/netns.ts';
import { connectSeqPacket, listenSeqPacket, type Packet, type SeqPacketConnection } from '../../native/seqpacket.ts';
import { adoptNetns, openNetnsHandle } from '../../src/netns/handle.ts';
import { startZdsClient, type ZdsClient } from '../../src/zds/client.ts';
import { decodeResponse, encodeRequest } from '../../src/zds/codec.ts';
import { startZdsServer, type ZdsServer } from '../../src/zds/server.ts';
import { createZdsSession, RETRY_MS, type Readiness, type ZdsSession } from '../../src/zds/session.ts';
import type { PodInfo, PodManager } from '../../src/zds/types.ts';
import { assertNothingOpened, openDescriptors } from '../support/descriptors.ts';
import { listeningPods } from '../support/listening-pods.ts';
import { type Pod, type PodNetwork, podNetwork } from '../support/pods.ts';
import { agentListener } from '../support/tcp.ts';
import { type ManualTimers, manualTimers, settled } from '../support/timers.ts';

const quiet = { info() {}, warn() {}, error() {} };
const info = (pod: Pod): PodInfo => ({ uid: `uid-${pod.name}`, name: pod.name, namespace: 'ns', serviceAccount: 'sa' });

interface Agent {
  readonly pods: PodManager;
  readonly session: ZdsSession;
  readonly client: ZdsClient;
  readonly timers: ManualTimers;
  /** Resolves when the agent is in that state; at once when it is. */
  when(readiness: Readiness): Promise<void>;
}

function startAgent(t: TestContext, path: string): Agent {
  const pods = listeningPods();
  t.after(() => pods.close());
  return startAgentOver(t, path, pods);
}

function startAgentOver(t: TestContext, path: string, pods: PodManager): Agent {
  const timers = manualTimers();
  const events = new EventTarget();
  const session = createZdsSession({
    pods,
    timers,
    log: quiet,
    onReadiness: (readiness) => events.dispatchEvent(new Event(readiness)),
  });
  const client = startZdsClient({ path, session, timers, log: quiet, random: () => 0.5 });
  t.after(() => {
    client.close();
    session.close();
  });
  return {
    pods,
    session,
    client,
    timers,
    async when(readiness) {
      if (session.readiness() !== readiness) await once(events, readiness);
    },
  };
}

function nodeAgent(t: TestContext, path: string): ZdsServer {
  const server = startZdsServer({ path, log: quiet });
  t.after(() => server.close());
  return server;
}

async function enrol(server: ZdsServer, pod: Pod): Promise<void> {
  await server.add(info(pod), pod.netns.duplicate());
}

async function listening(pod: Pod): Promise<string[]> {
  const { stdout } = await pod.run(['ss', '-Hltn']);
  return [...stdout.matchAll(/\*:(\d+) /g)].map(([, port]) => port!).sort();
}

const ALL_PORTS = ['15001', '15006', '15008'];

async function setUp(t: TestContext): Promise<{ network: PodNetwork; path: string }> {
  const network = await podNetwork(t);
  return { network, path: join(network.folder, 'zds.sock') };
}

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

/** A node agent that says whatever the test wants. */
async function rawNodeAgent(t: TestContext, path: string) {
  const connections: SeqPacketConnection[] = [];
  let connected = Promise.withResolvers<RawConnection>();
  const listener = listenSeqPacket(
    path,
    (connection) => {
      connections.push(connection);
      const arrived: string[] = [];
      const waiting: ((text: string) => void)[] = [];
      const ended = Promise.withResolvers<void>();
      let hello = true;
      connection.start(
        (packet: Packet) => {
          if (hello) {
            assert.equal(packet.payload.toString('hex'), '0801');
            hello = false;
            return;
          }
          const text = decodeResponse(packet.payload);
          const next = waiting.shift();
          if (next === undefined) arrived.push(text);
          else next(text);
        },
        () => ended.resolve(),
      );
      connected.resolve({
        send: (packet, descriptors) => connection.send(packet, descriptors),
        answer: () => {
          const text = arrived.shift();
          return text === undefined ? new Promise((resolve) => waiting.push(resolve)) : Promise.resolve(text);
        },
        ended: ended.promise,
      });
    },
    () => {},
  );
  t.after(() => {
    listener.close();
    for (const connection of connections) connection.close();
  });
  return {
    /** The next connection that is made. */
    async connection(): Promise<RawConnection> {
      const connection = await connected.promise;
      connected = Promise.withResolvers();
      return connection;
    },
  };
}

interface RawConnection {
  send(packet: Uint8Array, descriptors: readonly number[]): void;
  answer(): Promise<string>;
  readonly ended: Promise<void>;
}

const add = (uid: string) =>
  encodeRequest({ kind: 'add', uid, workload: { name: 'p', namespace: 'n', serviceAccount: 's' } });
const snapshotSent = encodeRequest({ kind: 'snapshot-sent' });

const dropped: [name: string, packet: Uint8Array, descriptors: 'none' | 'one' | 'three', answer: string | RegExp][] = [
  ['garbage', Buffer.from('GET / HTTP/1.1\r\n\r\n'), 'none', /^failure to read message : malformed ZDS message/],
  ['a cut message', add('a').subarray(0, 9), 'one', /^failure to read message : malformed ZDS message/],
  ['an oversized packet', Buffer.alloc(1025), 'one', 'failure to read message : received truncated message'],
  ['a message of no kind', Buffer.from([0x22, 0]), 'one', 'failure to read message : no payload'],
  ['an add without a descriptor', add('a'), 'none', 'failure to read message : No control message'],
  ['an add with three descriptors', add('a'), 'three', 'failure to read message : Expected 1 FD, got 3'],
  [
    'a removal with a descriptor',
    encodeRequest({ kind: 'del', uid: 'a' }),
    'one',
    'failure to read message : Unexpected control message',
  ],
  [
    'an add without workload_info',
    encodeRequest({ kind: 'add', uid: 'a', workload: null }),
    'one',
    'workload_info is required but not present',
  ],
  ['a second snapshot', snapshotSent, 'none', 'pod snapshot received already'],
  ['a keep after the snapshot', encodeRequest({ kind: 'keep', uid: 'a' }), 'none', 'pod keep received after snapshot'],
];

for (const [name, packet, descriptors, expected] of dropped) {
  test(`a node agent that sends ${name} is told so and loses the connection, and no pod is harmed`, async (t) => {
    const { network, path } = await setUp(t);
    const pod = await network.addPod('pod');
    const raw = await rawNodeAgent(t, path);
    const agent = startAgent(t, path);
    const connection = await raw.connection();
    connection.send(add('uid-pod'), [pod.netns.fd]);
    assert.equal(await connection.answer(), '');
    connection.send(snapshotSent, []);
    assert.equal(await connection.answer(), '');
    const before = openDescriptors();
    const count = { none: 0, one: 1, three: 3 }[descriptors];
    connection.send(packet, new Array<number>(count).fill(pod.netns.fd));
    const answer = await connection.answer();
    if (typeof expected === 'string') assert.equal(answer, expected);
    else assert.match(answer, expected);
    await connection.ended;
    assert.equal(agent.session.readiness(), 'disconnected');
    assert.deepEqual(await listening(pod), ALL_PORTS);
    // It comes back, after a pause.
    const [delay] = agent.timers.pending();
    assert.ok(delay! >= 16 && delay! <= 24, `${delay} ms`);
    await agent.timers.advance(delay!);
    const next = await raw.connection();
    next.send(add('uid-pod'), [pod.netns.fd]);
    assert.equal(await next.answer(), '');
    next.send(snapshotSent, []);
    assert.equal(await next.answer(), '');
    assert.equal(agent.session.readiness(), 'ready');
    const sockets = [...openDescriptors().values()].filter((target) => target.startsWith('net:'));
    assert.equal(sockets.length, [...before.values()].filter((target) => target.startsWith('net:')).length);
  });
}

test('a descriptor that is no namespace is refused and closed, and the connection goes on', async (t) => {
  const { network, path } = await setUp(t);
  const pod = await network.addPod('pod');
  const raw = await rawNodeAgent(t, path);
  const agent = startAgent(t, path);
  const connection = await raw.connection();
  const impostor = openSync('/proc/self/ns/mnt', 'r');
  const before = openDescriptors();
  connection.send(add('impostor'), [impostor]);
  assert.match(await connection.answer(), /^failure to start proxy : descriptor \d+ is not a network namespace$/);
  assertNothingOpened(before);
  connection.send(add('uid-pod'), [pod.netns.fd]);
  assert.equal(await connection.answer(), '');
  connection.send(snapshotSent, []);
  assert.equal(await connection.answer(), '');
  assert.equal(agent.session.readiness(), 'ready');
  assert.deepEqual(await listening(pod), ALL_PORTS);
  closeSync(impostor);
});

test('a flood of requests that waits for no answer ends the connection, and leaves no descriptor', async (t) => {
  const { network, path } = await setUp(t);
  const pod = await network.addPod('pod');
  const raw = await rawNodeAgent(t, path);
  const before = openDescriptors();
  // The first start never ends, so the others wait.
  const { client, session } = startAgentOver(t, path, {
    start: () => new Promise(() => {}),
    stop() {},
    running: () => new Map(),
  });
  const connection = await raw.connection();
  for (let i = 0; i < 100; i++) connection.send(add(`uid-${i}`), [pod.netns.fd]);
  await connection.ended;
  assert.equal(client.counters.violations, 1);
  assert.equal(session.readiness(), 'disconnected');
  const kept = [...openDescriptors()].filter(([fd, target]) => target.startsWith('net:') && !before.has(fd));
  assert.ok(kept.length <= 1, 'the start under way has a namespace, nobody else');
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
