import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HpackDecoder, HpackEncoder } from '../../../src/hbone/hpack.ts';
import { assertCompressionError, decodeBlock, encodeBlock } from './support/blocks.ts';
import { octets } from './support/hex.ts';

/** `a: b` with indexing: 34 octets in the list and in the table. */
const A_B = '40 01 61 01 62';

test('RFC 9113 §6.5.2: a list counts names, values and 32 octets a field', () => {
  const block = octets(`${A_B} be be`);
  assert.equal(decoder(3 * 34).decode(block, 0, block.length).length, 3);
  assert.equal(decoder(3 * 34 - 1).decode(block, 0, block.length), 'list-too-large');
});

test('RFC 9113 §10.5.1: the table stays in step behind a list that is too large', () => {
  const bounded = decoder(60);
  const block = octets(`${A_B} 40 01 63 01 64 40 01 65 01 66`);
  assert.equal(bounded.decode(block, 0, block.length), 'list-too-large');
  assert.equal(bounded.tableSize, 3 * 34);
  assert.deepEqual(decodeBlock(bounded, octets('be')), [['e', 'f']]);
  assert.deepEqual(decodeBlock(bounded, octets('c0')), [['a', 'b']]);
});

test('RFC 7541 §5.2: an error behind the bound is still COMPRESSION_ERROR', () => {
  assertCompressionError(decoder(10), octets(`${A_B} ff`));
});

test('HPACK bomb: one large entry, referred to from every octet, yields no list', () => {
  const bomb = decoder(65_536);
  const value = 'x'.repeat(4000);
  decodeBlock(bomb, encodeBlockWithEntry(value));
  const block = new Uint8Array(16_384).fill(0xbe);
  assert.equal(bomb.decode(block, 0, block.length), 'list-too-large');
  assert.deepEqual(decodeBlock(bomb, octets('be')), [['a', value]]);
});

test('RFC 7541 §4.4: an entry larger than the table empties it and is no error', () => {
  const small = decoder(65_536);
  decodeBlock(small, octets(A_B));
  assert.deepEqual(decodeBlock(small, encodeBlockWithEntry('y'.repeat(5000))), [['a', 'y'.repeat(5000)]]);
  assert.equal(small.tableSize, 0);
});

test('RFC 7541 §4.2: a table that is taken away holds nothing', () => {
  const encoder = new HpackEncoder({ maxTableSize: 4096 });
  const peer = decoder(65_536);
  decodeBlock(peer, encodeBlock(encoder, [['a', 'b']]));
  encoder.setMaxTableSize(0);
  peer.setMaxTableSize(0);
  assert.equal(encoder.tableSize, 0);
  decodeBlock(peer, encodeBlock(encoder, [['a', 'b']]));
  assert.equal(peer.tableSize, 0);
});

function decoder(maxHeaderListSize: number): HpackDecoder {
  return new HpackDecoder({ maxTableSize: 4096, maxHeaderListSize });
}

/** `a: <value>` with indexing, the value not Huffman-coded. */
function encodeBlockWithEntry(value: string): Uint8Array {
  const rest = value.length - 127;
  return octets(
    `40 01 61 7f ${(0x80 | (rest & 0x7f)).toString(16)} ${(rest >> 7).toString(16)} ${Buffer.from(value).toString('hex')}`,
  );
}
