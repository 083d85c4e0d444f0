import assert from 'node:assert/strict';
import { constants, type ServerHttp2Stream } from 'node:http2';
import { connect } from 'node:net';
import { test } from 'node:test';
import { dial, LOCALHOST, planeUnderTest, startPod, tunnelTo, until } from './support/plane-under-test.ts';
import { beyond, hear, http2Peer, type Wire } from './support/tunnel-peers.ts';

test('a request whose tunnel breaks before the answer is sent once more, and nothing the application said is lost', async (t) => {
  const rig = await planeUnderTest(t);
  let breaks = 1;
  const requests: ServerHttp2Stream[] = [];
  await http2Peer(t, rig, (stream, wire) => {
    requests.push(stream);
    if (breaks-- > 0) {
      wire.reset();
      return;
    }
    stream.respond({ ':status': 200 });
    stream.pipe(stream);
  });
  startPod(rig);
  const client = await dial(t, rig.ports.outbound);
  client.socket.end('said early');
  let heard = '';
  client.socket.setEncoding('utf8').on('data', (text: string) => {
    heard += text;
  });
  assert.equal(await client.ended, 'end');
  assert.equal(heard, 'said early');
  assert.equal(requests.length, 2);
  // A peer that always breaks costs two requests.
  breaks = Number.POSITIVE_INFINITY;
  assert.equal(await (await dial(t, rig.ports.outbound)).ended, 'reset');
  assert.match(rig.log(), /error="h2 failed: (Connection reset by peer|the peer closed the tunnel)/);
  assert.equal(requests.length, 4);
});

test('a tunnel that breaks after the answer resets the application: it is not known what was taken', async (t) => {
  const rig = await planeUnderTest(t);
  let requests = 0;
  await http2Peer(t, rig, (stream, wire) => {
    requests++;
    stream.respond({ ':status': 200 });
    stream.once('data', () => wire.reset());
  });
  startPod(rig);
  const client = await dial(t, rig.ports.outbound);
  client.socket.write('hello');
  assert.equal(await client.ended, 'reset');
  assert.equal(requests, 1);
});

type Serve = (stream: ServerHttp2Stream, wire: Wire) => void;
const refuse: Serve = (stream) => stream.close(constants.NGHTTP2_REFUSED_STREAM);
const breakWire: Serve = (_, wire) => wire.reset();
const faults: readonly [what: string, at: 'gateway' | 'far end', fault: Serve][] = [
  ['whose network gateway refuses it', 'gateway', refuse],
  ['whose tunnel to a network gateway breaks', 'gateway', breakWire],
  ['that the far end beyond a network gateway refuses', 'far end', refuse],
  ['whose tunnel beyond a network gateway breaks', 'far end', breakWire],
];
for (const [what, at, fault] of faults) {
  test(`RFC 9113 §8.7: a request ${what} before the answer is sent once more`, async (t) => {
    const rig = await planeUnderTest(t);
    let faults = 1;
    const requests = { gateway: 0, 'far end': 0 };
    const unlessFault = (place: typeof at, serve: Serve): Serve => {
      return (stream, wire) => {
        requests[place]++;
        if (place === at && faults-- > 0) fault(stream, wire);
        else serve(stream, wire);
      };
    };
    const farEnd = await http2Peer(
      t,
      rig,
      unlessFault('far end', (stream) => {
        stream.respond({ ':status': 200 });
        stream.end('served');
      }),
    );
    const gateway = await http2Peer(
      t,
      rig,
      unlessFault('gateway', (stream) => {
        stream.respond({ ':status': 200 });
        const far = connect(farEnd, LOCALHOST);
        far.on('error', () => stream.close(constants.NGHTTP2_CONNECT_ERROR));
        stream.pipe(far).pipe(stream);
      }),
    );
    const plan = beyond(tunnelTo({ ...rig.ports, hbone: gateway }, 80), 80);
    rig.answer = () => plan;
    startPod(rig);
    assert.deepEqual(await hear(t, rig), { end: 'end', heard: 'served' });
    assert.deepEqual(requests, { gateway: 2, 'far end': at === 'gateway' ? 1 : 2 });
    await until('connections stay', () => rig.plane.snapshot()[0]!.connections.length === 0);
  });
}
