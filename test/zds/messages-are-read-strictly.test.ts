import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { CulvertError } from '../../src/errors.ts';
import {
  decodeHello,
  decodeRequest,
  decodeResponse,
  encodeHello,
  encodeRequest,
  encodeResponse,
} from '../../src/zds/codec.ts';
import type { WorkloadRequest } from '../../src/zds/types.ts';

const hex = (text: string) => Buffer.from(text.replaceAll(' ', ''), 'hex');

/** The examples of the protocol's description. */
const requests: [bytes: string, message: WorkloadRequest][] = [
  ['1a 00', { kind: 'snapshot-sent' }],
  ['2a 05 0a 03 61 62 63', { kind: 'keep', uid: 'abc' }],
  ['12 05 12 03 61 62 63', { kind: 'del', uid: 'abc' }],
  [
    '0a 10 0a 03 61 62 63 12 09 0a 01 70 12 01 6e 1a 01 73',
    { kind: 'add', uid: 'abc', workload: { name: 'p', namespace: 'n', serviceAccount: 's' } },
  ],
  ['0a 05 0a 03 61 62 63', { kind: 'add', uid: 'abc', workload: null }],
];

for (const [bytes, message] of requests) {
  test(`${bytes} is ${message.kind}`, () => {
    assert.deepEqual(decodeRequest(hex(bytes)), message);
    assert.equal(Buffer.from(encodeRequest(message)).toString('hex'), bytes.replaceAll(' ', ''));
  });
}

test('hello and acknowledgements have the bytes of the protocol', () => {
  assert.equal(Buffer.from(encodeHello()).toString('hex'), '0801');
  assert.equal(decodeHello(hex('08 01')), 1);
  assert.equal(decodeHello(hex('')), 0);
  assert.equal(Buffer.from(encodeResponse('')).toString('hex'), '0a00');
  assert.equal(Buffer.from(encodeResponse('x')).toString('hex'), '0a030a0178');
  assert.equal(decodeResponse(hex('0a 00')), '');
  assert.equal(decodeResponse(hex('0a 03 0a 01 78')), 'x');
});

const unreadable: [what: string, bytes: string, code: string][] = [
  ['nothing', '', 'ZDS_NO_PAYLOAD'],
  ['only a field that is unknown', '22 00', 'ZDS_NO_PAYLOAD'],
  ['a length past the end', '0a 10 0a 03', 'ZDS_MALFORMED'],
  ['a length that leaves the inner message', '0a 03 0a 05 61', 'ZDS_MALFORMED'],
  ['a number where a message belongs', '08 01', 'ZDS_MALFORMED'],
  ['a number where text belongs', '12 02 10 01', 'ZDS_MALFORMED'],
  ['text that is not UTF-8', '12 04 12 02 c3 28', 'ZDS_MALFORMED'],
  ['field number 0', '02 00', 'ZDS_MALFORMED'],
  ['a number that never ends', 'ff ff ff ff ff ff ff ff ff ff ff', 'ZDS_MALFORMED'],
  ['a group that never ends', '3b 3b 3b 3b', 'ZDS_MALFORMED'],
  ['wire type 7', '3f', 'ZDS_MALFORMED'],
];

for (const [what, bytes, code] of unreadable) {
  test(`a request of ${what} is refused`, () => {
    assert.throws(
      () => decodeRequest(hex(bytes)),
      (error) => error instanceof CulvertError && error.code === code,
    );
  });
}

test('fields that are unknown are skipped, whatever their type', () => {
  const unknown = '38 01 41 0000000000000000 4a 02 6869 53 0801 54 5d 00000000';
  assert.deepEqual(decodeRequest(hex(`${unknown} 1a 00 ${unknown}`)), { kind: 'snapshot-sent' });
});

test('the last member of the oneof wins, and a repeated one is merged', () => {
  assert.deepEqual(decodeRequest(hex('1a 00 2a 03 0a 01 61')), { kind: 'keep', uid: 'a' });
  assert.deepEqual(decodeRequest(hex('0a 03 0a 01 61 0a 05 12 03 0a 01 70')), {
    kind: 'add',
    uid: 'a',
    workload: { name: 'p', namespace: '', serviceAccount: '' },
  });
});

test('the uid of a removal is not read from field 1', () => {
  assert.deepEqual(decodeRequest(hex('12 05 0a 03 61 62 63')), { kind: 'del', uid: '' });
});

const text = fc.string({ unit: 'grapheme', maxLength: 60 }).map((value) => value.toWellFormed());
const plain = { noNullPrototype: true } as const;
const workload = fc.record({ name: text, namespace: text, serviceAccount: text }, plain);
const anyRequest: fc.Arbitrary<WorkloadRequest> = fc.oneof(
  fc.record({ kind: fc.constant('add' as const), uid: text, workload: fc.option(workload) }, plain),
  fc.record({ kind: fc.constant('keep' as const), uid: text }, plain),
  fc.record({ kind: fc.constant('del' as const), uid: text }, plain),
  fc.constant({ kind: 'snapshot-sent' as const }),
);

test('what is written is read back', () => {
  fc.assert(fc.property(anyRequest, (request) => assert.deepEqual(decodeRequest(encodeRequest(request)), request)));
  fc.assert(fc.property(text, (error) => assert.equal(decodeResponse(encodeResponse(error)), error)));
});

test('no bytes make a reader throw anything but its own error', () => {
  const readers = [decodeRequest, decodeResponse, decodeHello];
  const survives = (bytes: Uint8Array) => {
    for (const read of readers) {
      try {
        read(bytes);
      } catch (error) {
        assert.ok(error instanceof CulvertError, String(error));
      }
    }
  };
  fc.assert(fc.property(fc.uint8Array({ maxLength: 1024 }), survives), { numRuns: 20_000 });
  // Nearly right is where readers break.
  const damaged = fc.tuple(anyRequest, fc.nat(), fc.nat(255), fc.nat()).map(([request, at, byte, cut]) => {
    const bytes = Uint8Array.from(encodeRequest(request));
    bytes[at % bytes.length] = byte;
    return bytes.subarray(0, 1 + (cut % bytes.length));
  });
  fc.assert(fc.property(damaged, survives), { numRuns: 20_000 });
});
