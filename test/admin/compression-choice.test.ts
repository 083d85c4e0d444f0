import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseEncoding } from '../../src/admin/compression.ts';

const cases: readonly (readonly [header: string, choice: string | null])[] = [
  ['', null],
  ['gzip', 'gzip'],
  ['GZIP', 'gzip'],
  ['gzip, br', 'br'],
  ['gzip, br;q=0.9', 'gzip'],
  ['gzip;q=0', null],
  ['gzip;q=0.0, deflate;q=0.001', 'deflate'],
  ['*', 'zstd'],
  ['*;q=0.5, zstd;q=0', 'br'],
  ['identity;q=0.5, gzip;q=0.2', null],
  ['identity;q=0.5, gzip;q=0.5', 'gzip'],
  ['identity, gzip;q=0.9', null],
  ['snappy, compress', null],
  ['gzip;q=nonsense', null],
  [' gzip ; q=1 ,, ', 'gzip'],
];

for (const [header, choice] of cases) {
  test(`"${header}" chooses ${choice ?? 'no compression'}`, () => assert.equal(chooseEncoding(header), choice));
}
