/** Streams and the windows of peers that return the credit of the connection only for what was read, as their rules say. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededRandom } from '../codec/support/random.ts';
import { LateReader, RETURNS } from './support/late-reader.ts';

const KB = 1024;
const MB = 1024 * KB;
const STEPS = 40;
const REQUEST = 500;

/** A second of requests, with a bulk stream beside them. Returns what was read of each. */
function traffic(peer: LateReader, siblings: ReadonlyArray<ReturnType<LateReader['upload']>>, bulk: number) {
  const before = siblings.map(({ stream }) => peer.taken(stream));
  for (let step = 0; step < STEPS; step++) {
    for (const [at, each] of siblings.entries()) each.give(at === 0 ? bulk : REQUEST);
    peer.step();
    for (const { stream } of siblings.slice(1)) peer.answer(stream);
  }
  peer.second();
  return siblings.map(({ stream }, at) => peer.taken(stream) - before[at]!);
}

for (const { returns, stream, connection, stalled } of [
  { returns: 'h2, as ztunnel', stream: 4 * MB, connection: 16 * MB, stalled: 5 },
  { returns: 'h2, as ztunnel', stream: MB, connection: MB, stalled: 1 },
  { returns: 'net/http2 of Go', stream: MB, connection: MB, stalled: 1 },
  { returns: 'net/http2 of Go', stream: 65_535, connection: 65_535, stalled: 1 },
  { returns: 'nghttp2', stream: 4 * MB, connection: 16 * MB, stalled: 2 },
] as const)
  test(`siblings go on beside ${stalled} stalled streams at ${returns}, ${stream} of ${connection} bytes for each`, () => {
    const peer = new LateReader(RETURNS[returns], { stream, connection });
    const bulk = connection >> 8;
    const siblings = Array.from({ length: 4 }, () => peer.upload(Number.POSITIVE_INFINITY));
    const stalling = Array.from({ length: stalled }, () => peer.upload(0));
    const wanted = [STEPS * bulk, ...siblings.slice(1).map(() => STEPS * REQUEST)];
    assert.deepEqual(traffic(peer, siblings, bulk), wanted);
    for (const each of stalling) {
      each.give(5 * MB);
      traffic(peer, siblings, bulk);
    }
    for (let second = 0; second < 10; second++) assert.deepEqual(traffic(peer, siblings, bulk), wanted);
  });

test('whoever is read gets on at every peer, whatever its windows, its distance and the speed of its readers', () => {
  for (let seed = 0; seed < 30; seed++) {
    const random = seededRandom(seed);
    const returns = random.pick(Object.keys(RETURNS) as (keyof typeof RETURNS)[]);
    const windows = {
      stream: random.pick([10_000, 65_535, 400_000]),
      connection: random.pick([65_535, 200_000, MB]),
    };
    const peer = new LateReader(RETURNS[returns], windows, random.pick([0, 1, 3]));
    const uploads = Array.from({ length: 1 + random.int(6) }, () => ({
      ...peer.upload(random.pick([5000, 20_000, MB])),
      pace: random.pick([3000, 30_000, MB]),
    }));
    const isDone = () => uploads.every(({ stream }) => peer.taken(stream) >= 2 * windows.connection);
    for (let second = 0; second < 1000 && !isDone(); second++) {
      for (let step = 0; step < 10; step++) {
        for (const { give, pace } of uploads) if (random.chance(0.5)) give(pace);
        peer.step();
      }
      peer.second();
    }
    const taken = uploads.map(({ stream }) => peer.taken(stream));
    assert.ok(isDone(), JSON.stringify({ seed, returns, windows, taken }));
  }
});

for (const returns of ['h2, as ztunnel', 'net/http2 of Go'] as const) {
  /** A server with downloads that its client reads at that many bytes in a tenth of a second. */
  const downloads = (...speeds: readonly number[]) => {
    const peer = new LateReader(RETURNS[returns], { stream: MB, connection: MB }, 0, 'server');
    const each = speeds.map((speed) => peer.upload(speed));
    return { peer, each };
  };
  const passSecond = (peer: LateReader) => {
    for (let step = 0; step < 10; step++) peer.step();
    peer.second();
  };

  for (const speed of [500, 10 * KB])
    test(`a server keeps a tunnel whose downloads all move, by ${speed} bytes in a tenth of a second, at ${returns}`, () => {
      const { peer, each } = downloads(...Array.from({ length: 12 }, () => speed));
      for (const { give } of each) give(100 * MB);
      let least = MB;
      for (let second = 0; second < 40; second++) {
        passSecond(peer);
        if (second > 20) least = Math.min(least, peer.sender.connection.sendWindow);
      }
      assert.ok(least < MB / 4, `never starved, ${least} bytes left`);
      assert.ok(peer.sender.connection.accepting);
      assert.deepEqual(peer.sender.breaches, []);
    });

  test(`a server leaves a tunnel whose downloads have stalled, though one moves, at ${returns}`, () => {
    const { peer, each } = downloads(10 * KB, ...Array.from({ length: 12 }, () => 0));
    for (const { give } of each.slice(1)) give(100 * MB);
    for (let second = 0; second < 40; second++) {
      each[0]!.give(KB);
      passSecond(peer);
    }
    assert.equal(peer.sender.connection.accepting, false);
    assert.deepEqual(peer.sender.breaches, ['window-starved']);
  });
}
