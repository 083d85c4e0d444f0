import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { prettyJson } from '../../src/admin/pretty-json.ts';

const text = (value: unknown) => [...prettyJson(value)].join('');

test('is what JSON.stringify gives, for any JSON value', () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 5 }), (value) =>
      assert.equal(text(value), `${JSON.stringify(value, null, 2)}\n`),
    ),
  );
});

for (const [what, value] of [
  ['nothing inside', { a: [], b: {}, c: [[], {}], d: { e: [] } }],
  ['members that are undefined', { a: undefined, b: [undefined], c: { d: undefined, e: 1 } }],
  ['objects that say themselves how they are written', { a: new Date(0), b: { c: { toJSON: () => 'x' } } }],
  ['line feeds in texts', { a: { b: ['one\ntwo'] } }],
] as const) {
  test(`is what JSON.stringify gives, for ${what}`, () =>
    assert.equal(text(value), `${JSON.stringify(value, null, 2)}\n`));
}

test('a large list comes in many pieces', () => {
  const value = { list: Array.from({ length: 5000 }, (_, at) => ({ name: `workload-${at}`, ports: { 80: at } })) };
  const pieces = [...prettyJson(value)];
  assert.ok(pieces.length > 5);
  assert.ok(pieces.every((piece) => piece.length < 34_000));
  assert.equal(pieces.join(''), `${JSON.stringify(value, null, 2)}\n`);
});
