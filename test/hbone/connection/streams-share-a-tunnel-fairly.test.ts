import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Http2Stream } from '../../../src/hbone/stream.ts';
import { WindowBudget } from '../../../src/hbone/window-budget.ts';
import { ConnectionUnderTest, pump } from './support/connection-under-test.ts';

const KB = 1024;
const MB = 1024 * KB;
const STREAMS = 50;
/** What one read of an application brings at most. */
const READ = 256 * KB;

/** An application and the relay that reads from it. */
interface Reader {
  readonly stream: Http2Stream;
  /** Bytes that it has still to read. */
  left: number;
  /** Read, but not sent. */
  backlog: number;
}

/**
 * Uploads `total` bytes on every stream at once, as relays do: whoever may send reads once per turn of the loop. `portion`
 * is what the link takes per turn. Returns how far each stream was when the first one had arrived, least first.
 */
function whenFirstIsDone(total: number, portion: number, budget: number): number[] {
  const options = { budget: new WindowBudget(budget) };
  const client = new ConnectionUnderTest('client', options);
  const server = new ConnectionUnderTest('server', options);
  const opened = Array.from({ length: STREAMS }, () => client.open());
  pump(client, server);
  for (const { stream } of server.requests) stream.respond([[':status', '200']], false);
  pump(client, server);
  client.transport.room = 0;
  let ready: Reader[] = [];
  const readers = opened.map(({ stream, recorder }): Reader => {
    const reader = { stream, left: total, backlog: 0 };
    recorder.onWritable = () => goOn(reader);
    return reader;
  });
  /** Sends what was read, as much as is allowed; reads on in the next turn when that was all. */
  const goOn = (reader: Reader) => {
    const { stream } = reader;
    reader.backlog -= client.send(stream, reader.backlog);
    if (reader.backlog > 0 || reader.left === 0) return;
    if (stream.sendable() > 0) ready.push(reader);
    else stream.waitForWindow();
  };
  for (const reader of readers) goOn(reader);
  const arrived = server.requests.map(({ recorder }) => recorder);
  for (let turns = 0; arrived.every(({ length }) => length < total); turns++) {
    assert.ok(turns < 10_000, 'nothing moves');
    client.now = server.now = server.now + 1;
    const reading = ready;
    ready = [];
    for (const reader of reading) {
      reader.backlog = Math.min(READ, reader.left);
      reader.left -= reader.backlog;
      goOn(reader);
    }
    client.transport.makeRoom(portion);
    server.transport.deliver(client.transport.take());
    client.transport.deliver(server.transport.take());
  }
  return arrived.map(({ length }) => length).sort((a, b) => a - b);
}

for (const portion of [64 * KB, 4 * MB]) {
  for (const budget of [0, 64 * MB]) {
    const how = `a link that takes ${portion / KB} KiB at a time, ${budget / MB} MiB for larger windows`;
    test(`${STREAMS} streams have the same share of ${how}`, () => {
      const [least] = whenFirstIsDone(4 * MB, portion, budget);
      // Nobody is further behind than a few reads.
      assert.ok(least! >= 4 * MB - 3 * READ, `the last one has ${least! / KB} of ${4 * KB} KiB`);
    });
  }
}
