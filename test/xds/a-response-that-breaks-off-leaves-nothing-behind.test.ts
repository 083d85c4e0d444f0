import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createSecureServer, type ServerHttp2Stream } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import protobuf from 'protobufjs/minimal.js';
import { readAddress } from '../../src/xds/address.ts';
import { createAuthority } from '../native/authority.ts';
import { ADDRESS } from '../support/istiod.ts';
import { encode } from '../support/xds-schema.ts';
import { startClient, uid, workload } from './support/client-under-test.ts';

const GRPC_HEADER = 5;

/** What the workload is known to have in common with others: the same object as long as that is held. */
function profileOf(value: Buffer) {
  const address = readAddress(protobuf.Reader.create(value), value.length);
  assert.ok(address.kind === 'workload');
  return address.update.profile;
}

test('what is held of workloads to read others like them goes with a stream that breaks off in a response', async (t) => {
  const authority = createAuthority();
  const { chainPem, keyPem } = authority.material({ dnsNames: ['localhost'] });
  const server = createSecureServer({ cert: chainPem, key: keyPem });
  t.after(() => server.close());
  server.listen(0, '127.0.0.1');
  const opened = once(server, 'stream') as Promise<[ServerHttp2Stream]>;
  await once(server, 'listening');
  const { store, terminations, until } = startClient(t, {
    address: `https://localhost:${(server.address() as AddressInfo).port}`,
    rootPem: authority.rootPem,
  });

  const value = encode('Address', workload('a'));
  const resources = [{ name: uid('a'), version: '1', resource: { typeUrl: ADDRESS, value } }];
  const piece = encode('DeltaDiscoveryResponse', { resources });
  const header = Buffer.alloc(GRPC_HEADER);
  header.writeUInt32BE(piece.length + 1, 1);
  const [stream] = await opened;
  stream.on('error', () => {});
  stream.respond({ ':status': 200, 'content-type': 'application/grpc' });
  stream.write(Buffer.concat([header, piece]));
  await until('taken in', () => store.workload(uid('a')) !== null);
  const held = profileOf(value);
  assert.equal(profileOf(value), held);

  stream.session!.destroy();
  await until('lost', () => terminations.length > 0);
  assert.notEqual(profileOf(value), held);
});
