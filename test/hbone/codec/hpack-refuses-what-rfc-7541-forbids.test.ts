import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HpackDecoder } from '../../../src/hbone/hpack.ts';
import { assertCompressionError, decodeBlock } from './support/blocks.ts';
import { octets } from './support/hex.ts';

interface Case {
  readonly rule: string;
  /** Blocks read before, without an error. */
  readonly before?: readonly string[];
  /** Sizes announced and acknowledged before the last block. */
  readonly announced?: readonly number[];
  readonly block: string;
}

const REFUSED: readonly Case[] = [
  { rule: '§2.3.3: index 0 of an indexed field', block: '80' },
  { rule: '§2.3.3: an index beyond the static table while the dynamic table is empty', block: 'be' },
  { rule: '§2.3.3: an index beyond the dynamic table', before: ['40 01 61 01 62'], block: 'bf' },
  { rule: '§2.3.3: the name of a literal with indexing at an index beyond the tables', block: '7e 01 61' },
  { rule: '§2.3.3: the name of a literal without indexing at an index beyond the tables', block: '0f 2f 01 61' },
  { rule: '§2.3.3: the name of a never indexed literal at an index beyond the tables', block: '1f 2f 01 61' },
  { rule: '§4.4: an entry that was evicted by a size update', before: ['40 01 61 01 62'], block: '20 be' },
  { rule: '§5.1: an index that ends in its prefix', block: 'ff' },
  { rule: '§5.1: an index that ends in a continuation octet', block: 'ff 80' },
  { rule: '§5.1: an integer beyond 2^28', block: 'ff ff ff ff ff 01' },
  { rule: '§5.1: an integer beyond 2^32', block: 'ff ff ff ff ff ff ff ff ff 01' },
  { rule: '§5.1: an integer padded with continuation octets', block: '3f 80 80 80 80 00 82' },
  { rule: '§5.1: a string length beyond 2^28', block: '00 7f ff ff ff ff 01' },
  { rule: '§5.1: a table size update beyond 2^28', block: '3f ff ff ff ff 01' },
  { rule: '§5.2: a name that is cut off', block: '40 05 61 62' },
  { rule: '§5.2: a value that is cut off', block: '40 01 61 05 62' },
  { rule: '§5.2: a literal without a name', block: '40' },
  { rule: '§5.2: a literal without a value', block: '40 01 61' },
  { rule: '§5.2: a literal with an indexed name and without a value', block: '41' },
  { rule: '§5.2: a Huffman-coded string that is cut off', block: '41 8c f1 e3 c2' },
  { rule: '§5.2: Huffman padding with zeros', block: '41 81 00' },
  { rule: '§5.2: Huffman padding of eight bits', block: '41 81 ff' },
  { rule: '§5.2: Huffman padding of eight bits behind an octet', block: '41 82 1f ff' },
  { rule: '§5.2: Huffman padding of 29 bits', block: '41 85 ff 9f ff ff ff' },
  { rule: '§5.2: a Huffman-coded EOS', block: '41 84 ff ff ff fc' },
  { rule: '§5.2: a Huffman-coded EOS before a correct end', block: '41 85 ff ff ff fc 7f' },
  { rule: '§5.2: a Huffman-coded EOS as a whole octet of padding', block: '41 84 ff ff ff ff' },
  { rule: '§4.2: a table size update behind a field', block: '82 20' },
  { rule: '§4.2: a third table size update', block: '20 21 22 82' },
  { rule: '§6.3: a table size update above the size announced', block: '3f e2 1f' },
  { rule: '§6.3: a table size update above the size announced later', announced: [100], block: '3f 46' },
  { rule: '§4.2: no table size update after a reduction', announced: [100], block: '82' },
  { rule: '§4.2: no update to 0 after the table was taken away', announced: [0], block: '82' },
  {
    rule: '§4.2: an update only to the final size after a reduction in between',
    announced: [100, 4096],
    block: '3f e1 1f 82',
  },
  {
    rule: '§4.2: no update after a reduction below the size of an earlier update',
    before: ['3f e1 01 82'],
    announced: [200],
    block: '82',
  },
];

for (const { rule, before, announced, block } of REFUSED) {
  test(`COMPRESSION_ERROR, RFC 7541 ${rule}`, () =>
    assertCompressionError(prepared({ before, announced }), octets(block)));
}

const ACCEPTED: readonly Case[] = [
  { rule: '§4.2: an update to the size announced', block: '3f e1 1f 82' },
  { rule: '§4.2: an update below the size announced', block: '20 82' },
  { rule: '§4.2: two updates', block: '20 3f e1 1f 82' },
  { rule: '§4.2: an update to the reduced size', announced: [100], block: '3f 45 82' },
  { rule: '§4.2: an update below the reduced size', announced: [100], block: '20 82' },
  { rule: '§4.2: updates to the smallest and to the final size', announced: [100, 4096], block: '3f 45 3f e1 1f 82' },
  { rule: '§4.2: no update after an increase', announced: [8192], block: '82' },
  {
    rule: '§4.2: no update after a reduction to a size that the table never had',
    before: ['3f 45 82'],
    announced: [200],
    block: '82',
  },
  { rule: '§5.1: an integer padded to four continuation octets', block: '3f 80 80 80 00 82' },
  { rule: '§5.2: Huffman padding of seven bits', block: '41 84 00 00 00 7f' },
];

for (const { rule, before, announced, block } of ACCEPTED) {
  test(`accepted, RFC 7541 ${rule}`, () => {
    assert.equal(decodeBlock(prepared({ before, announced }), octets(block)).length, 1);
  });
}

function prepared({ before, announced }: { before: Case['before']; announced: Case['announced'] }): HpackDecoder {
  const decoder = new HpackDecoder({ maxTableSize: 4096, maxHeaderListSize: 65536 });
  for (const block of before ?? []) decodeBlock(decoder, octets(block));
  for (const size of announced ?? []) decoder.setMaxTableSize(size);
  return decoder;
}
