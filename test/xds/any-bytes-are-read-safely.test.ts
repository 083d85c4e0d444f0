/** The decoder against bytes of every kind: it reads, or it throws an Error; it does neither hang nor reach beyond. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import protobuf from 'protobufjs/minimal.js';
import { createMeshState } from '../../src/state/store.ts';
import { readAddress } from '../../src/xds/address.ts';
import { readAuthorization } from '../../src/xds/authorization.ts';
import { encodeRequest, encodeVersions } from '../../src/xds/delta.ts';
import { FieldSplitter } from '../../src/xds/field-splitter.ts';
import { MessageSplitter } from '../../src/xds/grpc-stream.ts';
import { decode, encode } from '../support/xds-schema.ts';
import { policy, service, workload } from './support/client-under-test.ts';
import { intakeOf, takeIn } from './support/taken-in.ts';

const captured = ['address', 'authorization'].map((name) =>
  readFileSync(new URL(`fixtures/xds-delta-response-${name}.bin`, import.meta.url)),
);

/** A message with some of its bytes changed, left out or doubled. */
const damaged = (originals: readonly Buffer[]) =>
  fc
    .record({
      original: fc.constantFrom(...originals),
      edits: fc.array(fc.record({ at: fc.nat(), byte: fc.nat(255), cut: fc.nat(3) }), { minLength: 1, maxLength: 6 }),
    })
    .map(({ original, edits }) => {
      let bytes: Buffer = Buffer.from(original);
      for (const { at, byte, cut } of edits) {
        const place = at % bytes.length;
        bytes = Buffer.concat([bytes.subarray(0, place), Buffer.of(byte), bytes.subarray(place + cut)]);
      }
      return bytes;
    });

function readsOrThrows(read: () => unknown): void {
  try {
    read();
  } catch (error) {
    assert.ok(error instanceof Error);
    assert.doesNotMatch(error.message, /undefined|null|not a function|Maximum call/);
  }
}

test('responses', () => {
  const arbitrary = fc.oneof(
    damaged(captured),
    fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
  );
  fc.assert(
    fc.property(arbitrary, fc.integer({ min: 1, max: 500 }), (bytes, pieceSize) => {
      const whole = createMeshState({ localNode: '' });
      const pieces = createMeshState({ localNode: '' });
      readsOrThrows(() => takeIn(intakeOf(whole), bytes));
      readsOrThrows(() => takeIn(intakeOf(pieces), bytes, pieceSize));
      for (const { uid } of whole.workloads()) assert.notEqual(uid, '');
    }),
    { numRuns: 2000 },
  );
});

test('addresses and policies', () => {
  const originals = [
    encode(
      'Address',
      workload('a', { services: { 'demo/s': { ports: [{ servicePort: 80 }] } }, capacity: { value: 3 } }),
    ),
    encode('Address', service('s', { loadBalancing: { routingPreference: ['ZONE', 'NODE'], mode: 'FAILOVER' } })),
    encode('Authorization', policy('p', { rules: [{ clauses: [{ matches: [{ principals: [{ exact: 'x' }] }] }] }] })),
  ];
  fc.assert(
    fc.property(damaged(originals), (bytes) => {
      for (const read of [readAddress, readAuthorization]) {
        readsOrThrows(() => read(protobuf.Reader.create(bytes), bytes.length));
      }
    }),
    { numRuns: 3000 },
  );
});

test('a damaged policy never becomes one that asks less without saying so', () => {
  const conditions = { principals: [{ exact: 'cluster.local/ns/a/sa/b' }], destinationPorts: [80, 81] };
  const rules = [{ clauses: [{ matches: [conditions] }] }];
  const original = encode('Authorization', policy('p', { action: 'ALLOW', rules }));
  fc.assert(
    fc.property(fc.nat(original.length - 1), fc.nat(255), (at, byte) => {
      const bytes = Buffer.from(original);
      bytes[at] = byte;
      readsOrThrows(() => {
        const read = readAuthorization(protobuf.Reader.create(bytes), bytes.length);
        const expected = Object.keys(plainRules(bytes));
        if (read.unintelligible === null) assert.equal(read.rules.length, expected.length);
      });
    }),
    { numRuns: 3000 },
  );
});

/** The rules as protobufjs sees them. */
function plainRules(bytes: Buffer): object {
  return (decode('Authorization', bytes) as { rules: object }).rules;
}

test('what comes in pieces is what came as a whole', () => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 20 }),
      fc.integer({ min: 1, max: 50 }),
      (messages, pieceSize) => {
        const bytes = Buffer.concat(
          messages.flatMap((message) => {
            const prefix = Buffer.alloc(5);
            prefix.writeUInt32BE(message.length, 1);
            return [prefix, Buffer.from(message)];
          }),
        );
        const splitter = new MessageSplitter();
        const found: Buffer[][] = [];
        let ends = 0;
        for (let at = 0; at < bytes.length; at += pieceSize) {
          for (const piece of splitter.push(bytes.subarray(at, at + pieceSize))) {
            if (piece.kind === 'begin') found.push([]);
            else if (piece.kind === 'bytes') found.at(-1)!.push(Buffer.from(piece.bytes));
            else ends++;
          }
        }
        assert.equal(ends, messages.length);
        assert.deepEqual(
          found.map((parts) => Buffer.concat(parts)),
          messages.map((message) => Buffer.from(message)),
        );
      },
    ),
  );
});

test('fields that come in pieces are those that came as a whole', () => {
  const field = fc.oneof(
    fc.tuple(fc.constant(2), fc.integer({ min: 1, max: 2000 }), fc.uint8Array({ maxLength: 300 })),
    fc.tuple(fc.constant(0), fc.integer({ min: 1, max: 2000 }), fc.uint8Array({ minLength: 1, maxLength: 1 })),
    fc.tuple(fc.constant(1), fc.integer({ min: 1, max: 2000 }), fc.uint8Array({ minLength: 8, maxLength: 8 })),
    fc.tuple(fc.constant(5), fc.integer({ min: 1, max: 2000 }), fc.uint8Array({ minLength: 4, maxLength: 4 })),
  );
  fc.assert(
    fc.property(fc.array(field, { maxLength: 20 }), fc.array(fc.integer({ min: 1, max: 400 })), (message, sizes) => {
      const writer = protobuf.Writer.create();
      for (const [wireType, number, content] of message) {
        writer.uint32((number << 3) | wireType);
        if (wireType === 2) writer.bytes(content);
        else if (wireType === 0) writer.uint32(content[0]! * 1000);
        else for (const byte of content) writer.uint32(byte & 0x7f);
      }
      const bytes = Buffer.from(writer.finish());
      const splitter = new FieldSplitter();
      const found: [number, Buffer][] = [];
      for (let at = 0, count = 0; at < bytes.length; count++) {
        const size = sizes[count] ?? 7;
        splitter.add(bytes.subarray(at, at + size));
        at += size;
        while (splitter.next())
          found.push([splitter.field, Buffer.from(splitter.bytes.subarray(splitter.start, splitter.end))]);
      }
      splitter.finish();
      assert.deepEqual(
        found,
        message.filter(([wireType]) => wireType === 2).map(([, number, content]) => [number, Buffer.from(content)]),
      );
    }),
  );
});

test('a field that never ends is not waited for beyond its message', () => {
  const fieldsOf = (bytes: Buffer) => {
    const fields = new FieldSplitter();
    fields.add(bytes);
    assert.equal(fields.next(), false);
    return fields;
  };
  assert.throws(() => fieldsOf(Buffer.of(0x12, 0xff, 0xff, 0xff, 0xff, 0x0f)).finish(), /cut off/);
  assert.throws(() => fieldsOf(Buffer.alloc(20, 0xff)), /more than 10 bytes/);
  assert.throws(() => [...new MessageSplitter().push(Buffer.of(0, 0xff, 0, 0, 0))], /more than 209715200/);
  assert.throws(() => [...new MessageSplitter().push(Buffer.of(1, 0, 0, 0, 1))], /compressed/);
});

test('requests are what the stock protobufjs reads', () => {
  const metadata = { NAME: 'x', LIST: [1, true, null, 'y'], NESTED: { a: { b: 'c' } } };
  const bytes = Buffer.concat([
    encodeRequest({
      typeUrl: 't',
      node: { id: 'node', metadata },
      subscribe: ['s'],
      unsubscribe: ['u'],
      nonce: 'n',
      error: 'e',
    }),
    encodeVersions([
      ['a', '1'],
      ['b', ''],
    ]),
  ]);
  const request = decode('DeltaDiscoveryRequest', bytes) as Record<string, unknown> & { node: { id: string } };
  assert.equal(request.node.id, 'node');
  assert.deepEqual(
    [request.typeUrl, request.resourceNamesSubscribe, request.resourceNamesUnsubscribe, request.responseNonce],
    ['t', ['s'], ['u'], 'n'],
  );
  assert.deepEqual(request.initialResourceVersions, { a: '1', b: '' });
  assert.equal((request.errorDetail as { message: string }).message, 'e');
});
