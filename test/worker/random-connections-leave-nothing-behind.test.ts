import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { test } from 'node:test';
import { application, LOCALHOST, planeUnderTest, startPod, until } from './support/plane-under-test.ts';

const CONNECTIONS = 600;
const AT_ONCE = 60;

/** The same numbers in every run, so that a failure comes again. */
function randomSource(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

test('connections that open, stall, end and break at random keep their bytes and leave nothing behind', async (t) => {
  const random = randomSource(7);
  const rig = await planeUnderTest(t, { maxStreamsPerTunnel: 20 });
  const app = await application(t, { allowHalfOpen: true });
  rig.app = app.port;
  // Echoes, with moods of its own.
  app.server.on('connection', (socket: Socket) => {
    const mood = random();
    if (mood < 0.1) socket.resetAndDestroy();
    else if (mood < 0.2) socket.pause();
    else socket.pipe(socket);
    if (mood > 0.9) setTimeout(() => socket.resetAndDestroy(), 20 * random());
    else if (mood < 0.2) setTimeout(() => socket.destroy(), 100 * random());
  });
  startPod(rig);
  let whole = 0;
  let broken = 0;
  const talk = async () => {
    const socket = connect({ port: random() < 0.8 ? rig.ports.outbound : rig.ports.plaintext, host: LOCALHOST });
    const bytes = randomBytes(Math.floor(10 ** (6 * random())));
    const hash = createHash('sha256');
    let received = 0;
    socket.on('data', (chunk: Buffer) => {
      hash.update(chunk);
      received += chunk.length;
    });
    const ended = new Promise<'end' | 'error'>((resolve) => {
      socket.on('error', () => resolve('error'));
      socket.on('end', () => resolve('end'));
      socket.on('close', () => resolve('error'));
    });
    socket.write(bytes);
    const mood = random();
    if (mood < 0.1) {
      await pause(10 * random());
      socket.resetAndDestroy();
      broken++;
      return;
    }
    if (mood < 0.2) {
      socket.pause();
      await pause(50 * random());
      socket.resume();
    }
    if (mood < 0.3) {
      await pause(30 * random());
      socket.destroy();
      broken++;
      return;
    }
    socket.end();
    if ((await ended) === 'end' && received === bytes.length) {
      assert.equal(hash.digest('hex'), createHash('sha256').update(bytes).digest('hex'));
      whole++;
    } else {
      assert.ok(received <= bytes.length);
      broken++;
    }
    socket.destroy();
  };
  let left = CONNECTIONS;
  await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      while (left-- > 0) await talk();
    }),
  );
  assert.ok(whole > CONNECTIONS / 3, `${whole} were whole, ${broken} broken`);

  await until('connections stay', () => rig.plane.snapshot()[0]!.connections.length === 0);
  await until('streams stay', () => [...rig.plane.pool.connections()].every(({ streamCount }) => streamCount === 0));
  // Each tunnel has two ends here; nothing else is open.
  await until('channels stay', () => rig.plane.loop.size === 2 * rig.plane.pool.size);
  const { traffic } = rig.metrics.report();
  assert.ok(traffic.live.every((live) => live === 0));
  assert.equal(rig.plane.http2('client').budget.used, 0);
  assert.doesNotMatch(rig.log(), /error in the agent|h2 failed: (?!stream reset)/);
});
