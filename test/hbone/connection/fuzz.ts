/**
 * A structure-aware fuzzer for connections in both roles: conversations that RFC 9113 allows, breaches of it at any point
 * of them, and the same bytes mutated. Every case follows from one number, which a failure names.
 *
 *     node test/hbone/connection/fuzz.ts [--seconds 600] [--seed 1] [--once]
 *
 * `--once` runs only the case of that seed.
 */
import assert from 'node:assert/strict';
import { parseArgs } from 'node:util';
import { FRAME_HEADER_SIZE, frameLength } from '../../../src/hbone/frames.ts';
import { errorCodeName } from '../../../src/hbone/http-error.ts';
import { WindowBudget } from '../../../src/hbone/window-budget.ts';
import { mutated } from '../codec/support/block-generator.ts';
import { type Random, seededRandom } from '../codec/support/random.ts';
import { type FuzzReport, runCases } from '../support/fuzzing.ts';
import { randomBreach } from './support/breaches.ts';
import { ConnectionUnderTest, type Role } from './support/connection-under-test.ts';
import { RandomConversation } from './support/random-conversation.ts';

/** Runs cases from `seed` on until the time is up. Throws on the first failing case, naming its seed. */
export function fuzz(seconds: number, seed: number): FuzzReport {
  return runCases(seconds, seed, runCase);
}

/** Runs the one case that follows from `seed`. */
export function runCase(seed: number): void {
  const random = seededRandom(seed);
  const role = random.pick(['client', 'server'] as const);
  random.pick([fuzzConversation, fuzzConversation, fuzzBreach, fuzzBreach, fuzzBytes])(random, role);
}

/** What is allowed works: every byte and header arrives, every window is kept to, and it ends in order. */
function fuzzConversation(random: Random, role: Role): void {
  const conversation = new RandomConversation(random, role);
  conversation.talk(random.int(120));
  conversation.finish();
  conversation.close();
}

/** A breach ends what RFC 9113 says with the code that it says, and nothing else. */
function fuzzBreach(random: Random, role: Role): void {
  const conversation = new RandomConversation(random, role);
  const { under, model } = conversation;
  conversation.talk(random.int(80));
  const breach = randomBreach(random, model, role === 'server');
  model.breaks(breach.streamId, breach.code);
  model.send(...breach.frames);
  try {
    conversation.exchangeAll();
    if (breach.streamId === null) {
      assert.equal(under.closed && errorCodeName(under.closed.http2Code), breach.code);
      assert.equal(model.wentAway, breach.code);
      conversation.assertFreed();
      return;
    }
    assert.equal(under.closed, undefined, 'the connection has ended');
    assert.ok(model.streams.get(breach.streamId)?.reset, 'the stream goes on');
    assert.ok(['unknown', breach.code].includes(conversation.outcome(breach.streamId)));
    // The tables are still in step, the windows as well.
    conversation.talk(20);
    conversation.finish();
  } catch (cause) {
    throw new Error(`after ${breach.what}: ${(cause as Error).message}`, { cause });
  }
}

/** Bytes that are nearly right: nothing is thrown, nothing is left, and it does not matter how they are cut. */
function fuzzBytes(random: Random, role: Role): void {
  const conversation = new RandomConversation(random, role);
  conversation.talk(random.int(60));
  const bytes = random.chance(0.2)
    ? Buffer.concat(conversation.delivered)
    : mutatedFrames(random, Buffer.concat(conversation.delivered), role);
  const whole = replay(role, bytes, () => 1 << 18);
  assert.deepEqual(
    replay(role, bytes, () => 1 + random.int(random.pick(bytes.length < 20_000 ? [3, 20, 5000] : [100, 5000, 50_000]))),
    whole,
    'it matters how the bytes are cut',
  );
}

interface Replayed {
  readonly said: readonly string[];
  readonly closed: string;
  readonly streams: readonly string[];
}

/** What a connection that is used by nobody makes of the bytes. */
function replay(role: Role, bytes: Buffer, chunk: () => number): Replayed {
  const budget = new WindowBudget(1 << 20);
  const under = new ConnectionUnderTest(role, { budget, maxConcurrentStreams: 10 });
  under.reads = false;
  const opened = role === 'client' ? Array.from({ length: 10 }, () => under.open().recorder) : [];
  for (let at = 0; at < bytes.length; ) {
    const part = bytes.subarray(at, at + chunk());
    under.transport.deliver(part);
    at += part.length;
  }
  const recorders = [...opened, ...under.requests.map(({ recorder }) => recorder)];
  const streams = recorders.map((r) => `${r.outcome} ${r.length} ${JSON.stringify(r.responses)}`);
  assert.ok(under.connection.streamCount <= 10);
  assert.equal(under.connection.isClosed, under.closed !== undefined);
  assert.equal(under.transport.closed, under.connection.isClosed);
  // Whole frames, of which the last one says why.
  const said = under.said();
  const error = under.closed ?? null;
  if (error !== null) assert.match(said.at(-1)!, new RegExp(`^GOAWAY ${errorCodeName(error.http2Code)} `));
  under.connection.lost('over');
  assert.equal(under.connection.streamCount, 0);
  assert.equal(budget.used, 0);
  // Only a stream that both sides have ended hears of no reset; nobody has ended one here.
  for (const recorder of recorders) assert.notEqual(recorder.reset, null);
  return { said, closed: String(error), streams };
}

/** Frames with faults: header fields changed, left out, repeated, exchanged, cut off; or any bytes changed. */
function mutatedFrames(random: Random, bytes: Buffer, role: Role): Buffer {
  const preface = role === 'server' ? 24 : 0;
  const frames: Buffer[] = [];
  for (let at = preface; at + FRAME_HEADER_SIZE <= bytes.length; ) {
    const end = at + FRAME_HEADER_SIZE + frameLength(bytes, at);
    frames.push(Buffer.from(bytes.subarray(at, end)));
    at = end;
  }
  for (let i = 1 + random.int(3); i > 0 && frames.length > 0; i--) {
    const at = random.int(frames.length);
    const chosen = frames[at]!;
    // Cut off already.
    if (chosen.length < FRAME_HEADER_SIZE) continue;
    switch (random.int(8)) {
      case 0:
        frames.splice(at, 1);
        break;
      case 1:
        frames.splice(random.int(frames.length + 1), 0, chosen);
        break;
      case 2:
        frames[at] = frames[random.int(frames.length)]!;
        break;
      case 3:
        chosen[3] = random.int(12);
        break;
      case 4:
        chosen[4] = random.pick([0, 1, 4, 5, 8, 0x20, 0xff]);
        break;
      case 5:
        chosen.writeUInt32BE(random.pick([0, 1, 2, 3, 5, 100, 0x7fff_ffff, 0xffff_ffff]), 5);
        break;
      case 6:
        chosen[random.int(3)] = random.int(256);
        break;
      default:
        frames[at] = Buffer.from(mutated(random, chosen));
    }
  }
  return Buffer.concat([bytes.subarray(0, preface), ...frames]);
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      seconds: { type: 'string', default: '600' },
      seed: { type: 'string', default: String(Date.now()) },
      once: { type: 'boolean', default: false },
    },
  });
  if (values.once) runCase(Number(values.seed));
  else console.log(fuzz(Number(values.seconds), Number(values.seed)));
}
