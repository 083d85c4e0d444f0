import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Cursor, readInteger, writeInteger } from '../../../src/hbone/hpack/integer.ts';
import { type HeaderField, HpackDecoder, HpackEncoder } from '../../../src/hbone/hpack.ts';
import { decodeBlock, encodeBlock } from './support/blocks.ts';
import { octets, toHex } from './support/hex.ts';

interface Step {
  readonly block: string;
  readonly fields: readonly HeaderField[];
  /** Newest first. */
  readonly table: readonly HeaderField[];
  readonly tableSize: number;
}

const INTEGERS: ReadonlyArray<{ section: string; prefixBits: number; value: number; octets: string }> = [
  { section: 'C.1.1', prefixBits: 5, value: 10, octets: '0a' },
  { section: 'C.1.2', prefixBits: 5, value: 1337, octets: '1f9a0a' },
  { section: 'C.1.3', prefixBits: 8, value: 42, octets: '2a' },
];

for (const { section, prefixBits, value, octets: hex } of INTEGERS) {
  test(`RFC 7541 ${section}: ${value} with a prefix of ${prefixBits} bits`, () => {
    const bytes = octets(hex);
    const cursor: Cursor = { bytes, position: 0, end: bytes.length };
    assert.equal(readInteger(cursor, prefixBits), value);
    assert.equal(cursor.position, bytes.length);
    const out = new Uint8Array(8);
    assert.equal(toHex(out.subarray(0, writeInteger(out, 0, prefixBits, 0, value))), hex);
  });
}

const GET_REQUEST: readonly HeaderField[] = [
  [':method', 'GET'],
  [':scheme', 'http'],
  [':path', '/'],
  [':authority', 'www.example.com'],
];
const AUTHORITY: HeaderField = [':authority', 'www.example.com'];
const NO_CACHE: HeaderField = ['cache-control', 'no-cache'];
const CUSTOM: HeaderField = ['custom-key', 'custom-value'];
const THIRD_REQUEST: readonly HeaderField[] = [
  [':method', 'GET'],
  [':scheme', 'https'],
  [':path', '/index.html'],
  AUTHORITY,
  CUSTOM,
];
const PRIVATE: HeaderField = ['cache-control', 'private'];
const DATE_21: HeaderField = ['date', 'Mon, 21 Oct 2013 20:13:21 GMT'];
const DATE_22: HeaderField = ['date', 'Mon, 21 Oct 2013 20:13:22 GMT'];
const LOCATION: HeaderField = ['location', 'https://www.example.com'];
const GZIP: HeaderField = ['content-encoding', 'gzip'];
const COOKIE: HeaderField = ['set-cookie', 'foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1'];

const REQUESTS: ReadonlyArray<Omit<Step, 'block'>> = [
  { fields: GET_REQUEST, table: [AUTHORITY], tableSize: 57 },
  { fields: [...GET_REQUEST, NO_CACHE], table: [NO_CACHE, AUTHORITY], tableSize: 110 },
  { fields: THIRD_REQUEST, table: [CUSTOM, NO_CACHE, AUTHORITY], tableSize: 164 },
];
const RESPONSES: ReadonlyArray<Omit<Step, 'block'>> = [
  {
    fields: [[':status', '302'], PRIVATE, DATE_21, LOCATION],
    table: [LOCATION, DATE_21, PRIVATE, [':status', '302']],
    tableSize: 222,
  },
  {
    fields: [[':status', '307'], PRIVATE, DATE_21, LOCATION],
    table: [[':status', '307'], LOCATION, DATE_21, PRIVATE],
    tableSize: 222,
  },
  {
    fields: [[':status', '200'], PRIVATE, DATE_22, LOCATION, GZIP, COOKIE],
    table: [COOKIE, GZIP, DATE_22],
    tableSize: 215,
  },
];

const EXAMPLES: ReadonlyArray<{ section: string; maxTableSize: number; steps: readonly Step[] }> = [
  {
    section: 'C.2.1 literal with indexing',
    maxTableSize: 4096,
    steps: [
      {
        block: '400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572',
        fields: [['custom-key', 'custom-header']],
        table: [['custom-key', 'custom-header']],
        tableSize: 55,
      },
    ],
  },
  {
    section: 'C.2.2 literal without indexing',
    maxTableSize: 4096,
    steps: [
      { block: '040c 2f73 616d 706c 652f 7061 7468', fields: [[':path', '/sample/path']], table: [], tableSize: 0 },
    ],
  },
  {
    section: 'C.2.3 literal never indexed',
    maxTableSize: 4096,
    steps: [
      {
        block: '1008 7061 7373 776f 7264 0673 6563 7265 74',
        fields: [['password', 'secret']],
        table: [],
        tableSize: 0,
      },
    ],
  },
  {
    section: 'C.2.4 indexed',
    maxTableSize: 4096,
    steps: [{ block: '82', fields: [[':method', 'GET']], table: [], tableSize: 0 }],
  },
  {
    section: 'C.3 requests without Huffman code',
    maxTableSize: 4096,
    steps: withBlocks(REQUESTS, [
      '8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d',
      '8286 84be 5808 6e6f 2d63 6163 6865',
      '8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65',
    ]),
  },
  {
    section: 'C.4 requests with Huffman code',
    maxTableSize: 4096,
    steps: withBlocks(REQUESTS, [
      '8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff',
      '8286 84be 5886 a8eb 1064 9cbf',
      '8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf',
    ]),
  },
  {
    section: 'C.5 responses without Huffman code, with evictions',
    maxTableSize: 256,
    steps: withBlocks(RESPONSES, [
      `4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120
       474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d`,
      '4803 3330 37c1 c0bf',
      `88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738
       666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33
       3630 303b 2076 6572 7369 6f6e 3d31`,
    ]),
  },
  {
    section: 'C.6 responses with Huffman code, with evictions',
    maxTableSize: 256,
    steps: withBlocks(RESPONSES, [
      `4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718
       63c7 8f0b 97c8 e9ae 82ae 43d3`,
      '4883 640e ffc1 c0bf',
      `88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7
       b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07`,
    ]),
  },
];

for (const { section, maxTableSize, steps } of EXAMPLES) {
  test(`RFC 7541 ${section}: fields, table and table size after each block`, () => {
    const decoder = new HpackDecoder({ maxTableSize, maxHeaderListSize: 65536 });
    for (const [i, { block, fields, table, tableSize }] of steps.entries()) {
      assert.deepEqual(decodeBlock(decoder, octets(block)), fields, `block ${i + 1}`);
      assert.equal(decoder.tableSize, tableSize);
      for (const [j, field] of table.entries()) {
        assert.deepEqual(decodeBlock(decoder, Uint8Array.of(0x80 | (62 + j))), [field], `entry ${62 + j}`);
      }
    }
  });
}

test('RFC 7541 C.4: the encoder writes those very octets', () => {
  const encoder = new HpackEncoder({ maxTableSize: 4096 });
  const example = EXAMPLES.find(({ section }) => section.startsWith('C.4'))!;
  for (const { block, fields } of example.steps) {
    assert.equal(toHex(encodeBlock(encoder, fields)), toHex(octets(block)));
  }
});

function withBlocks(steps: ReadonlyArray<Omit<Step, 'block'>>, blocks: readonly string[]): Step[] {
  return steps.map((step, i) => ({ ...step, block: blocks[i]! }));
}
