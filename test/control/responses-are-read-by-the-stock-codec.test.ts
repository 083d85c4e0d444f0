/** What is encoded by hand, piece by piece, is what the stock protobufjs reads. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createChangeLog } from '../../src/control/ads/change-log.ts';
import { prepareResponse, type ResponseContent } from '../../src/control/ads/response.ts';
import { servedType } from '../../src/control/ads/types.ts';
import { decode } from '../support/xds-schema.ts';
import { ADDRESS, readResponse } from './support/xds-peer.ts';

const type = servedType(ADDRESS)!;
const name = fc.string({ unit: 'grapheme', maxLength: 40 });

function prepared(content: ResponseContent) {
  const steps = prepareResponse(content);
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
  }
}

const resources = fc.uniqueArray(
  fc.record({
    name,
    version: fc.constantFrom('', '0', '9f86d081884c7d65'),
    // Some fit into a piece many times, some not at all.
    body: fc.oneof(
      fc.uint8Array({ maxLength: 300 }),
      fc.integer({ min: 60_000, max: 140_000 }).map((length) => new Uint8Array(length).fill(7)),
    ),
  }),
  { maxLength: 20, selector: (each) => each.name },
);

test('any resources, aliases and removed names', () => {
  fc.assert(
    fc.property(
      resources,
      fc.array(name, { maxLength: 5 }),
      fc.array(name, { maxLength: 10 }),
      fc.boolean(),
      (all, aliases, removed, shared) => {
        const byName = new Map(all.map((each) => [each.name, aliases]));
        const content = { type, version: 'v/1', resources: all, aliases: byName, removed, shared };
        const response = prepared(content);
        const pieces = [...response.parts()];
        const bytes = Buffer.concat(pieces);
        assert.equal(bytes[0], 0);
        assert.equal(bytes.readUInt32BE(1), response.bytes);
        assert.equal(bytes.length, response.bytes + 5);
        const read = readResponse(bytes.subarray(5));
        assert.deepEqual([read.typeUrl, read.version, read.nonce], [ADDRESS, 'v/1', response.nonce]);
        assert.deepEqual(read.removed, removed.toSorted());
        assert.deepEqual(
          read.resources,
          new Map(
            all.map(({ name, version, body }) => [
              name,
              { version, aliases: [...aliases], typeUrl: ADDRESS, value: Buffer.from(body) },
            ]),
          ),
        );
        // Whoever comes later gets the same, whether pieces are kept or not.
        assert.deepEqual(Buffer.concat([...response.parts()]), bytes);
        if (shared) for (const [at, piece] of [...response.parts()].entries()) assert.equal(piece, pieces[at]);
        response.release();
        assert.deepEqual(Buffer.concat([...response.parts()]), bytes);
      },
    ),
    { numRuns: 100 },
  );
});

test('who is in the middle of a response when its pieces are let go still gets the rest', () => {
  const all = Array.from({ length: 50 }, (_, index) => ({
    name: `n${index}`,
    version: 'v',
    body: new Uint8Array(10_000).fill(index),
  }));
  const response = prepared({ type, version: 'v', resources: all, aliases: null, removed: [], shared: true });
  const whole = Buffer.concat([...response.parts()]);
  const pieces: Uint8Array[] = [];
  for (const piece of response.parts()) {
    if (pieces.push(piece) === 3) response.release();
  }
  assert.ok(pieces.length > 6);
  assert.deepEqual(Buffer.concat(pieces), whole);
  assert.equal((decode('DeltaDiscoveryResponse', whole.subarray(5)).resources as unknown[]).length, 50);
});

const changed = fc.uniqueArray(fc.constantFrom('a', 'b', 'c', 'd'), { maxLength: 3 });

test('the log of changes says what changed between any two places that it holds', () => {
  fc.assert(
    fc.property(
      fc.array(
        fc.oneof(
          {
            weight: 4,
            arbitrary: fc.record({ addresses: changed, policies: changed, narrowed: changed, isNew: fc.boolean() }),
          },
          { weight: 1, arbitrary: fc.record({ forget: fc.nat(3) }) },
        ),
        { maxLength: 30 },
      ),
      fc.nat(20),
      (steps, names) => {
        let now = 0;
        const log = createChangeLog(() => ++now);
        const model: { addresses: string[]; policies: string[]; narrowed: string[]; isNew: boolean }[] = [];
        let start = 0;
        for (const step of steps) {
          if ('forget' in step) {
            start = Math.min(model.length, start + step.forget);
            log.forget(start);
          } else {
            model.push(step);
            log.append({
              addresses: new Set(step.addresses),
              policies: new Set(step.policies),
              narrowed: new Set(step.narrowed),
              added: new Set(step.isNew ? step.policies : []),
            });
          }
          assert.deepEqual([log.start, log.head], [start, model.length]);
          for (let from = start; from <= model.length; from++) {
            for (const kind of ['addresses', 'policies', 'narrowed'] as const) {
              const expected = new Set(model.slice(from).flatMap((each) => each[kind]));
              assert.deepEqual(log.since(from)[kind], expected);
              const half = new Set(model.slice(from, from + 2).flatMap((each) => each[kind]));
              assert.deepEqual(log.between(from, from + 2)[kind], half);
            }
            // What there was not before the first change of it.
            const wasNone = (name: string) => model.slice(from).find(({ policies }) => policies.includes(name))!.isNew;
            const { policies, added } = log.since(from);
            assert.deepEqual(added, new Set([...policies].filter(wasNone)));
            assert.equal(log.policiesSince(from), log.since(from).policies.size > 0);
            assert.equal(log.firstAt(from), from < model.length ? from + 1 : null);
          }
        }
        const sizes = model.map(({ addresses, policies }) => addresses.length + policies.length);
        const sum = (from: number) => sizes.slice(from).reduce((total, size) => total + size, 0);
        assert.equal(log.size, sum(start));
        const latest = log.startOfLatest(names);
        assert.ok(sum(latest) <= names);
        assert.ok(latest === start || sum(latest - 1) > names);
      },
    ),
    { numRuns: 200 },
  );
});
