import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CLIENT_PREFACE } from '../../../src/hbone/frames.ts';
import { ErrorCode } from '../../../src/hbone/http-error.ts';
import { tunnelOnChannel } from '../../../src/hbone/tunnel.ts';
import { WindowBudget } from '../../../src/hbone/window-budget.ts';
import { accepted, loopOf, until } from '../../relay/support/relay-under-test.ts';
import {
  type ConnectionUnderTest,
  connectFrame,
  frame,
  settingsFrame,
  words,
} from './support/connection-under-test.ts';

test('a peer that stopped reading cannot keep the descriptor of a tunnel that closes', async (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] });
  const loop = loopOf(t);
  const { app, channel } = await accepted(t, loop);
  const requests: ConnectionUnderTest['requests'][number]['stream'][] = [];
  const connection = tunnelOnChannel(
    loop,
    channel,
    {
      role: 'server',
      initialWindow: 65_535,
      maxWindow: 65_535,
      connectionWindow: 65_535,
      maxFrameSize: 16_384,
      maxHeaderListSize: 65_536,
      maxConcurrentStreams: 10,
      assumedPeerStreams: 10,
      budget: new WindowBudget(0),
      breached() {},
      now: () => performance.now(),
    },
    {
      request(stream) {
        requests.push(stream);
        return { streamResponse() {}, streamData() {}, streamEnded() {}, streamReset() {}, streamWritable() {} };
      },
      goingAway() {},
      streamClosed() {},
      closed() {},
    },
  );
  app.socket.write(
    Buffer.concat([
      CLIENT_PREFACE,
      settingsFrame([[4, 0x7fff_ffff]]),
      frame(8, 0, 0, words(0x7000_0000)),
      connectFrame(1),
    ]),
  );
  while (requests.length === 0) await new Promise((resolve) => setImmediate(resolve));
  const [stream] = requests;
  while (!connection.congested) stream!.send(loop.scratchSize + 64, 100_000);
  connection.abort(ErrorCode.NO_ERROR, 'the pod is gone');
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(loop.size, 1);
  t.mock.timers.tick(10_000);
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(loop.size, 0);
  t.mock.timers.reset();
  app.read();
  await until('the peer sees the end', () => app.end === 'reset');
});
