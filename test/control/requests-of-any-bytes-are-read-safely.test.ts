/** Requests of node proxies: read as the stock protobufjs writes them, or refused, whatever they are. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type ClientRequest, readRequest } from '../../src/control/ads/request.ts';
import { MessageReader } from '../../src/control/grpc/messages.ts';
import { framePrefix } from '../../src/control/grpc/service.ts';
import { encode } from '../support/xds-schema.ts';
import { struct } from './support/xds-peer.ts';

function read(bytes: Uint8Array): ClientRequest {
  const steps = readRequest(bytes);
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
  }
}

const text = fc.string({ unit: 'grapheme', maxLength: 20 });
const key = text.filter((each) => each !== '__proto__');
const request = fc.record({
  node: fc.option(fc.record({ id: text, metadata: fc.dictionary(key, text, { maxKeys: 4 }) })),
  typeUrl: text,
  subscribe: fc.array(text, { maxLength: 600 }),
  unsubscribe: fc.array(text, { maxLength: 5 }),
  versions: fc.dictionary(key, text, { maxKeys: 5 }),
  nonce: text,
  error: fc.option(text),
});

function encoded({ node, typeUrl, subscribe, unsubscribe, versions, nonce, error }: fcValue<typeof request>): Buffer {
  return encode('DeltaDiscoveryRequest', {
    ...(node === null ? {} : { node: { id: node.id, cluster: 'c', metadata: struct(node.metadata) } }),
    typeUrl,
    resourceNamesSubscribe: subscribe,
    resourceNamesUnsubscribe: unsubscribe,
    initialResourceVersions: versions,
    responseNonce: nonce,
    ...(error === null ? {} : { errorDetail: { code: 3, message: error } }),
  });
}

type fcValue<T> = T extends fc.Arbitrary<infer Value> ? Value : never;

test('any request', () => {
  fc.assert(
    fc.property(request, (sent) => {
      const given = read(encoded(sent));
      assert.deepEqual(given, {
        node: sent.node && { id: sent.node.id, metadata: new Map(Object.entries(sent.node.metadata)) },
        typeUrl: sent.typeUrl,
        subscribe: sent.subscribe,
        unsubscribe: sent.unsubscribe,
        initialVersions: new Map(Object.entries(sent.versions)),
        nonce: sent.nonce,
        error: sent.error,
      });
    }),
    { numRuns: 100 },
  );
});

test('any bytes, and any request with some of its bytes altered', () => {
  const isReadOrRefused = (bytes: Uint8Array) => {
    try {
      read(bytes);
    } catch (error) {
      assert.equal((error as { code?: string }).code, 'INVALID_ARGUMENT');
    }
  };
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), isReadOrRefused), { numRuns: 1000 });
  fc.assert(
    fc.property(request, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 }), fc.nat(), (sent, edits, cut) => {
      const bytes = encoded(sent);
      for (const [at, value] of edits) if (bytes.length > 0) bytes[at % bytes.length] = value;
      isReadOrRefused(bytes.subarray(0, bytes.length - (cut % 3)));
    }),
    { numRuns: 500 },
  );
});

test('messages of a call that arrive in any pieces', () => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ maxLength: 50 }), { maxLength: 10 }),
      fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1 }),
      (messages, sizes) => {
        const all = Buffer.concat(messages.flatMap((message) => [framePrefix(message.length), message]));
        const reader = new MessageReader(50);
        const read: Buffer[] = [];
        for (let at = 0, turn = 0; at < all.length; turn++) {
          const size = sizes[turn % sizes.length]!;
          read.push(...reader.push(all.subarray(at, at + size)));
          at += size;
        }
        assert.deepEqual(
          read.map((each) => [...each]),
          messages.map((each) => [...each]),
        );
        assert.ok(reader.isBetween);
      },
    ),
  );
  assert.throws(() => [...new MessageReader(50).push(framePrefix(51))], { code: 'RESOURCE_EXHAUSTED' });
  assert.throws(() => [...new MessageReader(50).push(Buffer.from([1, 0, 0, 0, 0]))], { code: 'UNIMPLEMENTED' });
});
