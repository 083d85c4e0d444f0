import assert from 'node:assert/strict';
import type { ServerHttp2Stream } from 'node:http2';
import { test } from 'node:test';
import { dial, planeUnderTest, startPod } from './support/plane-under-test.ts';
import { http2Peer } from './support/tunnel-peers.ts';

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
