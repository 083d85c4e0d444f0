import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import * as der from '../../src/identity/der.ts';
import { openssl } from './openssl.ts';
import { scratchFolder } from './scratch.ts';

const values: [what: string, encoded: Buffer, printed: RegExp][] = [
  ['zero', der.unsignedInteger(Buffer.of(0, 0)), /INTEGER\s+:00/],
  ['127', der.unsignedInteger(Buffer.of(127)), /l=\s+1 prim: INTEGER\s+:7F/],
  ['128 gets a leading octet', der.unsignedInteger(Buffer.of(128)), /l=\s+2 prim: INTEGER\s+:80/],
  ['leading zeros go', der.unsignedInteger(Buffer.of(0, 0, 1, 0)), /l=\s+2 prim: INTEGER\s+:0100/],
  ['object identifier with large arcs', der.oid('1.2.840.113549.1.1.11'), /OBJECT\s+:sha256WithRSAEncryption/],
  ['object identifier below 2.', der.oid('2.5.29.17'), /OBJECT\s+:X509v3 Subject Alternative Name/],
  ['true', der.TRUE, /BOOLEAN\s+:255/],
  ['time until 2049', der.time(Date.UTC(2049, 11, 31, 23, 59, 59, 999)), /UTCTIME\s+:491231235959Z/],
  ['time from 2050', der.time(Date.UTC(2050, 0, 1)), /GENERALIZEDTIME\s+:20500101000000Z/],
  ['context tag', der.explicit(3, der.TRUE), /l=\s+3 cons: cont \[ 3 \]/],
  ['implicit context tag', der.implicit(6, Buffer.from('x')), /l=\s+1 prim: cont \[ 6 \]/],
  ['a length of two octets', der.element(der.TAG.octetString, Buffer.alloc(200)), /hl=3 l= 200 prim: OCTET STRING/],
  [
    'a length of three octets',
    der.element(der.TAG.octetString, Buffer.alloc(70_000)),
    /hl=5 l=70000 prim: OCTET STRING/,
  ],
  ['named bits', der.namedBits(5, 6), /l=\s+2 prim: BIT STRING/],
];

for (const [what, encoded, printed] of values) {
  test(`openssl reads: ${what}`, (t) => {
    const folder = scratchFolder(t);
    writeFileSync(join(folder, 'value.der'), encoded);
    assert.match(openssl(folder, 'asn1parse', '-inform', 'DER', '-in', 'value.der'), printed);
  });
}

test('named bits have no unused octet and count the unused bits', () => {
  assert.deepEqual([...der.namedBits(0)], [3, 2, 7, 0x80]);
  assert.deepEqual([...der.namedBits(5, 6)], [3, 2, 1, 0x06]);
});

test('elements are found again as they were written', () => {
  const written = fc.record(
    {
      tag: fc.constantFrom(0x02, 0x04, 0x30, 0xa3),
      content: fc.uint8Array({ maxLength: 400 }),
    },
    { noNullPrototype: true },
  );
  fc.assert(
    fc.property(fc.array(written), (list) => {
      const bytes = Buffer.concat(list.map(({ tag, content }) => der.element(tag, content)));
      const found = der.elements(bytes);
      assert.deepEqual(
        found.map(({ tag, content }) => ({ tag, content: Uint8Array.from(content) })),
        list,
      );
      assert.deepEqual(Buffer.concat(found.map(({ whole }) => whole)), bytes);
    }),
  );
});

test('a length beyond the end is an error, never a read beyond it', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
      try {
        der.elements(Buffer.from(bytes));
      } catch (error) {
        assert.ok(error instanceof RangeError);
      }
    }),
    { numRuns: 2000 },
  );
});
