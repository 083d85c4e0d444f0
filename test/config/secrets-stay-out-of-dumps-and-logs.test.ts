import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inspect } from 'node:util';
import { dumpConfig } from '../../src/config/dump.ts';
import { load } from './load.ts';

const SECRET = 'swordfish';

test('tokens and header values can be used but not printed', async () => {
  const config = await load({ AUTH_TOKEN: SECRET, XDS_HEADER_X_API_KEY: SECRET, CA_HEADER_Tenant: SECRET });
  assert.ok(config.authToken.kind === 'literal');
  assert.equal(config.authToken.token.reveal(), SECRET);
  assert.equal(config.xdsHeaders[0]!.name, 'x_api_key');
  assert.equal(config.xdsHeaders[0]!.value.reveal(), SECRET);
  assert.equal(config.caHeaders[0]!.name, 'tenant');
  const printed = [
    JSON.stringify(config),
    inspect(config, { depth: null, showHidden: true }),
    JSON.stringify(dumpConfig(config)),
    `${config.authToken.token}`,
    inspect(structuredClone({ ...config }), { depth: null }),
  ];
  for (const text of printed) assert.doesNotMatch(text, new RegExp(SECRET));
});

test('the config dump names headers and masks their values', async () => {
  const dump = dumpConfig(await load({ XDS_HEADER_KEY: SECRET, CA_HEADER_KEY: SECRET }));
  assert.deepEqual(dump.xdsHeaders, [['key', '***']]);
  assert.deepEqual(dump.caHeaders, [['key', '***']]);
});

test('AUTH_TOKEN that is the path of a file is read later, from there', async () => {
  const config = await load({ AUTH_TOKEN: '/run/token' }, { '/run/token': SECRET });
  assert.deepEqual(config.authToken, { kind: 'file', path: '/run/token' });
});

test('the mounted token is used when there is one', async () => {
  const path = './var/run/secrets/tokens/istio-token';
  assert.deepEqual((await load({}, { [path]: SECRET })).authToken, { kind: 'file', path });
});
