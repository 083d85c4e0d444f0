import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FrameType } from '../../../src/hbone/frames.ts';
import { ConnectionUnderTest, frame, words } from './support/connection-under-test.ts';

const KB = 1024;
const MB = 1024 * KB;

/** A client that may send a lot on each of its streams. */
function client(streams: number, window = 10 * MB) {
  const under = new ConnectionUnderTest('client', { assumedPeerStreams: streams }).established([[4, window]]);
  under.receive(frame(FrameType.WINDOW_UPDATE, 0, 0, words(1000 * MB)));
  return { under, streams: Array.from({ length: streams }, () => under.open()) };
}

/** Streams that always have more to send, and what each has sent. */
function neverDone(count: number, window?: number) {
  const { under, streams } = client(count, window);
  const sent = new Map(streams.map(({ stream }) => [stream.id, 0]));
  for (const { stream, recorder } of streams) {
    // As a relay does: one read for each turn, as large as it may be.
    recorder.onWritable = () => {
      sent.set(stream.id, sent.get(stream.id)! + under.send(stream, stream.turn()));
      stream.waitForWindow();
    };
  }
  return { under, streams, sent };
}

test('streams of a congested tunnel take turns of the same length, however much each has to send', () => {
  const { under, streams, sent } = neverDone(50);
  under.transport.room = 0;
  for (const { recorder } of streams) recorder.onWritable();
  for (let i = 0; i < 400; i++) {
    under.transport.makeRoom(128 * KB);
    assert.ok(under.transport.queued < 1 * MB, `${under.transport.queued} bytes wait`);
  }
  const amounts = [...sent.values()];
  const [least, most] = [Math.min(...amounts), Math.max(...amounts)];
  assert.ok(least > 0.7 * most, `${least} to ${most}`);
});

test('what woken streams may read before they notice that the tunnel is congested again is bounded', () => {
  const { under, streams } = client(100);
  under.transport.room = 0;
  under.send(streams[0]!.stream, 5 * MB);
  let granted = 0;
  for (const { stream, recorder } of streams) {
    stream.waitForWindow();
    recorder.onWritable = () => {
      granted += stream.turn();
    };
  }
  under.transport.makeRoom(under.transport.queued);
  assert.ok(granted >= 100 * 16 * KB && granted <= 2 * MB, `${granted} bytes`);
});

test('turns have their full length again after the congestion', () => {
  const { under, streams } = client(100);
  under.transport.room = 0;
  under.send(streams[0]!.stream, 5 * MB);
  for (const { stream } of streams) stream.waitForWindow();
  under.transport.makeRoom(Number.POSITIVE_INFINITY);
  assert.equal(streams[1]!.stream.turn(), 16 * KB);
  under.send(streams[1]!.stream, 3 * MB);
  assert.equal(streams[1]!.stream.turn(), 256 * KB);
});

for (const [when, what] of [
  ['in the same second', 'waits until they have'],
  ['a second before', 'waits no longer than they do'],
] as const) {
  test(`a stream that has sent what its siblings have not, ${when}, ${what}`, () => {
    const { under, streams, sent } = neverDone(100);
    const [{ stream, recorder }] = streams as [(typeof streams)[number]];
    while (sent.get(stream.id)! < 300 * KB) recorder.onWritable();
    const lead = sent.get(stream.id)!;
    if (when === 'a second before') under.connection.keepAlive(1_000_000, 1_000_000);
    under.transport.room = 0;
    for (const each of streams) each.recorder.onWritable();
    while ([...sent.values()].reduce((sum, bytes) => sum + bytes) < 100 * MB) under.transport.makeRoom(128 * KB);
    const [ahead, ...others] = [...sent.values()];
    const least = Math.min(...others);
    const most = Math.max(...others);
    assert.ok(most - least < 100 * KB, `${least} to ${most}`);
    const remains = when === 'a second before' ? lead : 0;
    assert.ok(Math.abs(ahead! - least - remains) < 100 * KB, `${ahead} beside ${least}`);
  });
}

test('a stream that has sent far more than its siblings gets its turn again before they have caught up', () => {
  const { under, streams, sent } = neverDone(40, 200 * MB);
  const [{ stream, recorder }] = streams as [(typeof streams)[number]];
  while (sent.get(stream.id)! < 50 * MB) recorder.onWritable();
  under.transport.room = 0;
  for (const each of streams) each.recorder.onWritable();
  const lead = sent.get(stream.id)!;
  const others = () => [...sent.values()].reduce((sum, bytes) => sum + bytes) - sent.get(stream.id)!;
  while (sent.get(stream.id) === lead && others() < 200 * MB) under.transport.makeRoom(128 * KB);
  // About 1 MB of each.
  assert.ok(others() < 50 * MB, `${others()} bytes of the others came first`);
});
