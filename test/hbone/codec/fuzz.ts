/**
 * A structure-aware fuzzer for the codecs: well-formed frames, header blocks, heads and headers with faults in them.
 * Every case follows from one number, which a failure names.
 *
 *     node test/hbone/codec/fuzz.ts [--seconds 600] [--seed 1] [--once]
 *
 * `--once` runs only the case of that seed.
 */
import assert from 'node:assert/strict';
import { parseArgs } from 'node:util';
import { buildBaggage, parseBaggage } from '../../../src/hbone/baggage.ts';
import {
  readForwardedNetwork,
  readRequestHead,
  readResponseHead,
  readTrailers,
} from '../../../src/hbone/connect-headers.ts';
import { fieldFault } from '../../../src/hbone/field-rules.ts';
import { buildForwarded, parseForwarded } from '../../../src/hbone/forwarded.ts';
import {
  FRAME_HEADER_SIZE,
  FrameFlag,
  FrameType,
  frameFlags,
  frameLength,
  frameStreamId,
  frameType,
  headersSize,
  writeHeaders,
} from '../../../src/hbone/frames.ts';
import { type HeaderField, HpackDecoder, HpackEncoder } from '../../../src/hbone/hpack.ts';
import { Http2Error } from '../../../src/hbone/http-error.ts';
import { parseTraceparent } from '../../../src/hbone/traceparent.ts';
import { type FuzzReport, runCases } from '../support/fuzzing.ts';
import { mutated, randomBlock, randomFields, randomText } from './support/block-generator.ts';
import { decodeBlock, encodeBlock } from './support/blocks.ts';
import { type Random, seededRandom } from './support/random.ts';

/** Runs cases from `seed` on until the time is up. Throws on the first failing case, naming its seed. */
export function fuzz(seconds: number, seed: number): FuzzReport {
  return runCases(seconds, seed, runCase);
}

/** Runs the one case that follows from `seed`. */
export function runCase(seed: number): void {
  const random = seededRandom(seed);
  random.pick([fuzzDecoder, fuzzRoundTrip, fuzzFrames, fuzzHeads, fuzzTunnelHeaders])(random);
}

/** A bounded decoder agrees with an unbounded one on everything but the size of the list. */
function fuzzDecoder(random: Random): void {
  const maxHeaderListSize = random.int(500);
  const maxTableSize = random.pick([0, 100, 4096]);
  const bounded = new HpackDecoder({ maxTableSize, maxHeaderListSize });
  const unbounded = new HpackDecoder({ maxTableSize, maxHeaderListSize: Number.MAX_SAFE_INTEGER });
  let limit = maxTableSize;
  for (let i = 1 + random.int(6); i > 0; i--) {
    if (random.chance(0.2)) {
      const size = random.pick([0, 64, 200, 4096]);
      bounded.setMaxTableSize(size);
      unbounded.setMaxTableSize(size);
      limit = Math.max(limit, size);
    }
    const block = randomBlock(random);
    const fields = outcome(() => unbounded.decode(block, 0, block.length));
    const boundedFields = outcome(() => bounded.decode(block, 0, block.length));
    assert.equal(bounded.tableSize, unbounded.tableSize);
    assert.ok(unbounded.tableSize <= limit, 'table within its limit');
    assert.notEqual(fields, 'list-too-large');
    if (fields instanceof Http2Error) {
      assert.deepEqual([fields.code, fields.scope.kind], ['HTTP2_COMPRESSION_ERROR', 'connection']);
      assert.equal(String(boundedFields), String(fields));
      return;
    }
    const size = (fields as HeaderField[]).reduce((sum, [name, value]) => sum + name.length + value.length + 32, 0);
    assert.deepEqual(boundedFields, size <= maxHeaderListSize ? fields : 'list-too-large');
  }
}

/** What the encoder writes, the decoder reads, within the size foretold and through changes of the table size. */
function fuzzRoundTrip(random: Random): void {
  const encoder = new HpackEncoder({ maxTableSize: random.pick([0, 100, 4096, 10_000]) });
  const decoder = new HpackDecoder({ maxTableSize: 4096, maxHeaderListSize: Number.MAX_SAFE_INTEGER });
  for (let i = 1 + random.int(10); i > 0; i--) {
    while (random.chance(0.2)) {
      const size = random.pick([0, 64, 200, 4096, 8192]);
      encoder.setMaxTableSize(size);
      decoder.setMaxTableSize(size);
    }
    const fields = randomFields(random);
    assert.deepEqual(decodeBlock(decoder, encodeBlock(encoder, fields)), fields);
    assert.equal(decoder.tableSize, encoder.tableSize);
  }
}

/** A block in frames is found again by walking their headers; nothing around the frames is touched. */
function fuzzFrames(random: Random): void {
  const block = random.octets(random.int(200));
  const maxFrameSize = 1 + random.int(100);
  const offset = random.int(20);
  const size = headersSize(block.length, maxFrameSize);
  const out = new Uint8Array(offset + size + 20).fill(0xee);
  const inPlace = random.chance(0.5);
  if (inPlace) out.set(block, offset + FRAME_HEADER_SIZE);
  const endStream = random.chance(0.5);
  const [source, from] = inPlace ? ([out, offset + FRAME_HEADER_SIZE] as const) : ([block, 0] as const);
  assert.equal(writeHeaders(out, offset, 77, endStream, source, from, block.length, maxFrameSize), size);
  const found: number[] = [];
  let at = offset;
  for (let last = false; !last; ) {
    const length = frameLength(out, at);
    const flags = frameFlags(out, at);
    assert.equal(frameStreamId(out, at), 77);
    assert.equal(frameType(out, at), at === offset ? FrameType.HEADERS : FrameType.CONTINUATION);
    assert.equal((flags & FrameFlag.END_STREAM) !== 0, endStream && at === offset);
    last = (flags & FrameFlag.END_HEADERS) !== 0;
    found.push(...out.subarray(at + FRAME_HEADER_SIZE, at + FRAME_HEADER_SIZE + length));
    assert.ok(length <= maxFrameSize);
    at += FRAME_HEADER_SIZE + length;
  }
  assert.equal(at, offset + size);
  assert.deepEqual(Uint8Array.from(found), block);
  assert.ok(
    out.subarray(0, offset).every((octet) => octet === 0xee) && out.subarray(at).every((octet) => octet === 0xee),
  );
}

/** Judging a head never throws, and what passes is fit to be used. */
function fuzzHeads(random: Random): void {
  const fields: HeaderField[] = [
    [':method', 'CONNECT'],
    [':authority', '10.0.0.1:80'],
    ['baggage', 'a=b'],
  ];
  for (let i = random.int(4); i > 0; i--) {
    const at = random.int(fields.length + 1);
    if (random.chance(0.5)) fields.splice(at, random.int(2), ...randomFields(random).slice(0, 2));
    else fields[at % fields.length] = [faulty(random, fields[at % fields.length]![0]), randomText(random)];
  }
  const request = readRequestHead(fields);
  if (request.kind === 'connect') {
    assert.ok(request.authority.length > 0);
    for (const field of request.headers) assert.equal(fieldFault(field), null);
    assert.ok(fields.some(([name, value]) => name === ':method' && value === 'CONNECT'));
  }
  if (request.kind === 'other-method') assert.notEqual(request.method, 'CONNECT');
  const response = readResponseHead(random.chance(0.5) ? [[':status', '200'], ...fields.slice(2)] : fields);
  if (response.kind === 'response') assert.ok(response.status >= 200 && response.status <= 999);
  for (const head of [request, response, readTrailers(fields)]) {
    if (head.kind === 'malformed') assert.match(head.detail, /^[ -~]{1,300}$/);
  }
}

/** Parsers of what peers send in headers never throw and give short, clean strings; builders give valid fields. */
function fuzzTunnelHeaders(random: Random): void {
  const workload = {
    clusterId: randomText(random),
    namespace: randomText(random),
    workloadType: random.pick(['deployment', 'pod', 'job', 'cronjob', 'other']),
    workloadName: randomText(random),
    canonicalName: randomText(random),
    canonicalRevision: randomText(random),
    region: randomText(random),
    zone: randomText(random),
  };
  const baggage = buildBaggage(workload);
  const host = randomText(random);
  const forwarded = buildForwarded({ ip: '10.0.0.1', port: 1 }, host);
  assert.equal(fieldFault(['baggage', baggage]), null);
  assert.equal(fieldFault(['forwarded', forwarded]), null);
  if (/^[ -~]{1,900}$/.test(host)) assert.equal(parseForwarded(forwarded).host, host);
  for (const value of Object.values(parseBaggage(faulty(random, baggage)))) {
    assert.ok(value.length <= 253 && !/\p{Cc}/u.test(value), JSON.stringify(value));
  }
  parseForwarded(faulty(random, forwarded));
  parseTraceparent(faulty(random, '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'));
  readForwardedNetwork([['x-forwarded-network', randomText(random)]]);
}

function faulty(random: Random, text: string): string {
  return random.chance(0.3) ? text : Buffer.from(mutated(random, Buffer.from(text, 'latin1'))).toString('latin1');
}

/** The result, or the Http2Error that was thrown; every other error is passed on. */
function outcome<T>(run: () => T): T | Http2Error {
  try {
    return run();
  } catch (error) {
    if (error instanceof Http2Error) return error;
    throw error;
  }
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
