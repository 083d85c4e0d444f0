import assert from 'node:assert/strict';
import { closeSync, openSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { listenSeqPacket, type Packet, type SeqPacketConnection } from '../../native/seqpacket.ts';
import { decodeResponse, encodeRequest } from '../../src/zds/codec.ts';
import { assertNothingOpened, openDescriptors } from '../support/descriptors.ts';
import { ALL_PORTS, listening, setUp, startAgent, startAgentOver } from './agent-under-test.ts';

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
