import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type HeaderField, HpackDecoder, HpackEncoder, maxEncodedSize } from '../../../src/hbone/hpack.ts';
import { decodeBlock, encodeBlock } from './support/blocks.ts';
import { toHex } from './support/hex.ts';

test('a tunnel repeats method, authority and baggage as one octet each', () => {
  const encoder = new HpackEncoder({ maxTableSize: 4096 });
  const fields: HeaderField[] = [
    [':method', 'CONNECT'],
    [':authority', '10.0.0.1:8080'],
    ['baggage', 'k8s.namespace.name=default'],
  ];
  encodeBlock(encoder, fields);
  assert.equal(toHex(encodeBlock(encoder, fields)), 'c0bfbe');
});

test('values that change with every stream take one entry, for their name', () => {
  const encoder = new HpackEncoder({ maxTableSize: 4096 });
  for (const name of ['forwarded', 'traceparent']) {
    encodeBlock(encoder, [[name, 'first']]);
    const size = encoder.tableSize;
    const block = encodeBlock(encoder, [[name, 'zzz']]);
    // Without indexing, name at index 62, three octets that Huffman code would not shorten.
    assert.equal(toHex(block), '0f2f037a7a7a');
    assert.equal(encoder.tableSize, size);
  }
});

for (const name of ['authorization', 'proxy-authorization', 'cookie', 'set-cookie']) {
  test(`RFC 7541 §7.1.3: ${name} is never indexed`, () => {
    const encoder = new HpackEncoder({ maxTableSize: 4096 });
    for (let i = 0; i < 2; i++) {
      assert.equal(encodeBlock(encoder, [[name, 'secret']])[0]! & 0xf0, 0x10);
      assert.equal(encoder.tableSize, 0);
    }
  });
}

test('RFC 7541 §5.2: Huffman code only where it is shorter', () => {
  const encoder = new HpackEncoder({ maxTableSize: 0 });
  encodeBlock(encoder, []);
  assert.equal(toHex(encodeBlock(encoder, [['host', 'www']])), '0f1703777777');
  assert.equal(toHex(encodeBlock(encoder, [['host', '0000']])), '0f178300000f');
});

test('RFC 7541 §4.1: a field that would take most of the table is not indexed', () => {
  const encoder = new HpackEncoder({ maxTableSize: 4096 });
  encodeBlock(encoder, [
    ['a', 'b'],
    ['large', 'x'.repeat(3500)],
  ]);
  assert.equal(encoder.tableSize, 34);
});

const SIZE_CHANGES: ReadonlyArray<{ title: string; own: number; peer: readonly number[]; updates: string }> = [
  { title: 'no update when the peer keeps 4096', own: 4096, peer: [4096], updates: '' },
  { title: 'no update when the peer allows more than is wanted', own: 4096, peer: [65_536], updates: '' },
  { title: 'an update when the peer allows less', own: 4096, peer: [100], updates: '3f45' },
  { title: 'an update to 0', own: 4096, peer: [0], updates: '20' },
  { title: 'an update when more is wanted and allowed', own: 8192, peer: [8192], updates: '3fe13f' },
  { title: 'the smallest and the final size', own: 4096, peer: [100, 4096], updates: '3f453fe11f' },
  { title: 'the smallest and the final size of many', own: 4096, peer: [200, 0, 300, 100], updates: '203f45' },
  { title: 'only the final size when it is the smallest', own: 4096, peer: [300, 100], updates: '3f45' },
  { title: 'an update at the start when less is wanted than 4096', own: 100, peer: [], updates: '3f45' },
  { title: 'a small table of its own under a larger limit', own: 100, peer: [4096, 50], updates: '3f13' },
];

for (const { title, own, peer, updates } of SIZE_CHANGES) {
  test(`RFC 7541 §4.2: ${title}`, () => {
    const encoder = new HpackEncoder({ maxTableSize: own });
    for (const size of peer) encoder.setMaxTableSize(size);
    assert.equal(toHex(encodeBlock(encoder, [[':method', 'GET']])), `${updates}82`);
    assert.equal(toHex(encodeBlock(encoder, [[':method', 'GET']])), '82', 'told once');
  });
}

test('RFC 7541 §4.3: entries survive an update as long as they fit', () => {
  const encoder = new HpackEncoder({ maxTableSize: 4096 });
  const decoder = new HpackDecoder({ maxTableSize: 4096, maxHeaderListSize: 65536 });
  const fields: HeaderField[] = [
    ['a', '1'],
    ['b', '2'],
    ['c', '3'],
  ];
  decodeBlock(decoder, encodeBlock(encoder, fields));
  encoder.setMaxTableSize(2 * 34);
  decoder.setMaxTableSize(2 * 34);
  assert.deepEqual(decodeBlock(decoder, encodeBlock(encoder, [['b', '2']])), [['b', '2']]);
  assert.equal(encoder.tableSize, 2 * 34);
  assert.equal(decoder.tableSize, 2 * 34);
});

test('octets beyond ASCII travel as latin1 characters', () => {
  const all = Array.from({ length: 256 }, (_, octet) => String.fromCharCode(octet)).join('');
  const encoder = new HpackEncoder({ maxTableSize: 4096 });
  const decoder = new HpackDecoder({ maxTableSize: 4096, maxHeaderListSize: 65536 });
  for (const value of [all, ...all]) {
    assert.deepEqual(decodeBlock(decoder, encodeBlock(encoder, [['x', value]])), [['x', value]]);
  }
});

test('what cannot be written is refused before the table changes', () => {
  const encoder = new HpackEncoder({ maxTableSize: 4096 });
  const good: HeaderField = ['a', 'b'];
  const out = new Uint8Array(256);
  for (const bad of ['snow \u2603', 'emoji \u{1f600}']) {
    assert.throws(() => encoder.encode([good, ['x', bad]], out, 0), { code: 'HPACK_NOT_LATIN1' });
    assert.throws(() => encoder.encode([good, [bad, 'x']], out, 0), { code: 'HPACK_NOT_LATIN1' });
  }
  assert.throws(() => encoder.encode([good], out, out.length - maxEncodedSize([good]) + 1), { code: 'HPACK_NO_ROOM' });
  assert.equal(encoder.tableSize, 0);
  assert.ok(encoder.encode([good], out, out.length - maxEncodedSize([good])) > 0);
});
