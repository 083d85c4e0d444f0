import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ADDRESS } from '../support/istiod.ts';
import { encode } from '../support/xds-schema.ts';
import { istiod, startClient, uid, workload } from './support/client-under-test.ts';

test('more than fits into what istiod takes is reported in part, and what went meanwhile is removed all the same', async (t) => {
  // Its limit for a request is 4 MB, as istiod's is.
  const server = await istiod(t);
  const names = Array.from({ length: 8_000 }, (_, index) => `${'long-name-'.repeat(45)}${index}`);
  server.change({
    addresses: Object.fromEntries(names.map((name) => [uid(name), encode('Address', workload(name))])),
  });
  const { client, store, until, terminations } = startClient(t, server);
  await client.synced;
  const gone = names.filter((_, index) => index % 100 === 0);
  server.change({ addresses: Object.fromEntries(gone.map((name) => [uid(name), null])) });
  server.endStreams();
  const request = await server.request('versions', ({ stream, typeUrl }) => stream === 1 && typeUrl === ADDRESS);
  const reported = Object.keys(request.initialVersions).length;
  assert.ok(reported > 1000 && reported < names.length, `${reported} reported`);
  await until('in step', () => client.status().types.Address!.resources === names.length - gone.length);
  for (const name of gone) assert.equal(store.workload(uid(name)), null);
  assert.deepEqual(terminations, ['Reconnect']);
});

test('what was rejected is forgotten when it went while there was no stream', async (t) => {
  const server = await istiod(t);
  server.change({ addresses: { [uid('good')]: workload('good'), [uid('wrong')]: workload('another name') } });
  const { client, until } = startClient(t, server);
  const rejected = () => Object.keys(client.status().types.Address!.rejected);
  await client.synced;
  assert.deepEqual(rejected(), [uid('wrong')]);
  server.change({ addresses: { [uid('wrong')]: null } });
  server.endStreams();
  await until('forgotten', () => rejected().length === 0);
});
