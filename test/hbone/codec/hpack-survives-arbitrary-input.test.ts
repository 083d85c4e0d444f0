import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { huffmanLength, readHuffman, writeHuffman } from '../../../src/hbone/hpack/huffman.ts';
import { type Cursor, readInteger, writeInteger } from '../../../src/hbone/hpack/integer.ts';
import { HpackDecoder, HpackEncoder } from '../../../src/hbone/hpack.ts';
import { Http2Error } from '../../../src/hbone/http-error.ts';
import { decodeBlock, encodeBlock } from './support/blocks.ts';

const latin1Text = (maxLength: number) =>
  fc.uint8Array({ maxLength }).map((octets) => Buffer.from(octets).toString('latin1'));
const name = fc.oneof(
  fc.constantFrom(':method', ':authority', 'baggage', 'forwarded', 'traceparent', 'cookie', 'accept-encoding', 'x'),
  latin1Text(20),
);
const value = fc.oneof(fc.constantFrom('', 'CONNECT', 'gzip, deflate', '10.0.0.1:80'), latin1Text(200));
const fields = fc.array(fc.tuple(name, value), { maxLength: 10 });

test('RFC 7541 §5.1: every integer up to 2^28 survives every prefix', () => {
  const out = new Uint8Array(8);
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 2 ** 28 }), fc.integer({ min: 1, max: 8 }), (number, prefixBits) => {
      const end = writeInteger(out, 0, prefixBits, 0, number);
      const cursor: Cursor = { bytes: out, position: 0, end };
      assert.equal(readInteger(cursor, prefixBits), number);
      assert.equal(cursor.position, end);
    }),
  );
});

test('RFC 7541 §5.2: every string survives Huffman code, in the length foretold', () => {
  fc.assert(
    fc.property(latin1Text(5000), (text) => {
      const coded = new Uint8Array(huffmanLength(text));
      assert.equal(writeHuffman(coded, 0, text), coded.length);
      assert.equal(readHuffman(coded, 0, coded.length), text);
    }),
  );
});

test('RFC 7541 §2.2: blocks decode to what was encoded, whatever sizes the two ends agree on meanwhile', () => {
  const tableSize = fc.option(fc.constantFrom(0, 40, 100, 4096, 10_000), { nil: null });
  fc.assert(
    fc.property(fc.array(fc.tuple(tableSize, fields), { maxLength: 12 }), (steps) => {
      const encoder = new HpackEncoder({ maxTableSize: 8192 });
      const decoder = new HpackDecoder({ maxTableSize: 4096, maxHeaderListSize: 1 << 20 });
      for (const [size, list] of steps) {
        if (size !== null) {
          encoder.setMaxTableSize(size);
          decoder.setMaxTableSize(size);
        }
        assert.deepEqual(decodeBlock(decoder, encodeBlock(encoder, list)), list);
        assert.equal(decoder.tableSize, encoder.tableSize);
      }
    }),
  );
});

test('RFC 7541 §7.3: any octets give fields within the bound, or COMPRESSION_ERROR, and never a larger table', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 5 }), (blocks) => {
      const decoder = new HpackDecoder({ maxTableSize: 200, maxHeaderListSize: 500 });
      try {
        for (const block of blocks) {
          const list = decoder.decode(block, 0, block.length);
          if (list === 'list-too-large') continue;
          assert.ok(list.reduce((size, field) => size + field[0].length + field[1].length + 32, 0) <= 500);
        }
      } catch (error) {
        assert.ok(error instanceof Http2Error && error.code === 'HTTP2_COMPRESSION_ERROR', String(error));
      }
      assert.ok(decoder.tableSize <= 200);
    }),
    { numRuns: 2000 },
  );
});
