import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PackedMap, pairOfPackedMaps } from '../../src/state/packed-map.ts';
import { NOTHING, WordMap } from '../../src/state/word-map.ts';

/** Few enough to meet again, of many lengths, some beyond ASCII. */
const texts = fc.oneof(
  fc.integer({ min: 0, max: 400 }).map((number) => `Kubernetes//Pod/namespace/pod-${'x'.repeat(number % 50)}${number}`),
  fc.constantFrom('', 'ä', 'ö/日本語', 'a'.repeat(3000)),
);
const entries = fc.record({ map: fc.nat(1), key: texts, value: fc.option(texts) });

test('packed maps hold what plain ones do, and an entry keeps its number', () => {
  fc.assert(
    fc.property(fc.array(entries, { maxLength: 2000 }), fc.boolean(), (list, isPair) => {
      const packed = isPair ? pairOfPackedMaps() : [new PackedMap(), new PackedMap()];
      const plain = packed.map(() => new Map<string, { value: string; id: number }>());
      for (const { map, key, value } of list) {
        const before = plain[map]!.get(key);
        const beside = plain[1 - map]!.get(key);
        if (value === null) {
          assert.equal(packed[map]!.delete(key), before?.id ?? -1);
          plain[map]!.delete(key);
        } else {
          const id = packed[map]!.set(key, value);
          if (before !== undefined) assert.equal(id, before.id);
          if (isPair && beside !== undefined) assert.equal(id, beside.id);
          plain[map]!.set(key, { value, id });
        }
      }
      for (const [map, held] of packed.entries()) {
        assert.equal(held.size, plain[map]!.size);
        assert.deepEqual([...held.ids()].sort(), [...plain[map]!.values()].map(({ id }) => id).sort());
        for (const [key, { value, id }] of plain[map]!) {
          assert.equal(held.find(key), id);
          assert.deepEqual([held.keyAt(id), held.valueAt(id)], [key, value]);
        }
        for (const { key } of list) if (!plain[map]!.has(key)) assert.equal(held.find(key), -1);
      }
    }),
    { numRuns: 50 },
  );
});

test('a packed map takes in and lets go of tens of thousands', () => {
  const packed = new PackedMap();
  const name = (index: number) => `Kubernetes//Pod/namespace-${index % 100}/pod-${index}`;
  for (let index = 0; index < 50_000; index++) packed.set(name(index), String(index));
  for (let index = 0; index < 50_000; index += 2) packed.delete(name(index));
  for (let index = 0; index < 50_000; index++) {
    const id = packed.find(name(index));
    if (index % 2 === 0) assert.equal(id, -1);
    else assert.equal(packed.valueAt(id), String(index));
  }
  assert.equal(packed.size, 25_000);
});

test('a map of words holds what a plain one does', () => {
  const words = fc.oneof(fc.integer({ min: -300, max: 300 }), fc.integer());
  const wordEdits = fc.array(fc.record({ key: words, value: fc.option(fc.nat()) }), { maxLength: 2000 });
  fc.assert(
    fc.property(wordEdits, (list) => {
      const map = new WordMap();
      const plain = new Map<number, number>();
      for (const { key, value } of list) {
        if (value === null) {
          map.delete(key);
          plain.delete(key);
        } else {
          map.set(key, value);
          plain.set(key, value);
        }
      }
      assert.equal(map.size, plain.size);
      for (const { key } of list) assert.equal(map.get(key), plain.get(key) ?? NOTHING);
    }),
    { numRuns: 50 },
  );
});
