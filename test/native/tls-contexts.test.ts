import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { generateKeyPairSync } from 'node:crypto';
import { closeSync, constants, existsSync, openSync, readFileSync, statSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { assertNothingOpened, openDescriptors } from '../support/descriptors.ts';
import type { TestMaterial } from './authority.ts';
import { createAuthority } from './authority.ts';
import { CLIENT_ID, SERVER_ID, startClient, startedTlsPair, startServer, temporaryFolder } from './secure-side.ts';
import { assertLog, connectedPair, nextTurns, testLoop } from './side.ts';

const authority = createAuthority();
const clientMaterial = authority.material({ uris: [CLIENT_ID] });
const serverMaterial = authority.material({ uris: [SERVER_ID] });
const chained = authority.intermediate().material({ uris: [SERVER_ID] });

const UNREADABLE = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n';
const otherKey = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;

const wrong: Record<string, { material: Partial<TestMaterial>; error: RegExp }> = {
  'no chain': { material: { chainPem: '' }, error: /^the certificate chain contains no certificate$/ },
  'a chain that is something else': {
    material: { chainPem: serverMaterial.keyPem },
    error: /^the certificate chain contains no certificate$/,
  },
  'an unreadable leaf': { material: { chainPem: UNREADABLE }, error: /^certificate 1 of the chain cannot be read: / },
  'an unreadable intermediate': {
    material: { chainPem: serverMaterial.chainPem + UNREADABLE },
    error: /^certificate 2 of the chain cannot be read: /,
  },
  'no roots': { material: { rootsPem: '' }, error: /^the trust roots contain no usable certificate$/ },
  'unreadable roots': {
    material: { rootsPem: UNREADABLE },
    error: /^the trust roots contain no usable certificate$/,
  },
  'a key of another certificate': {
    material: { key: otherKey },
    error: /^the private key does not belong to the certificate/,
  },
  'an unknown group': {
    material: { groups: 'X25519:P-1024' },
    error: /^cannot set the key exchange groups 'X25519:P-1024'/,
  },
  'a key log that cannot be written': {
    material: { keyLogPath: '/nowhere/keys.log' },
    error: /^cannot open the TLS key log '\/nowhere\/keys\.log': No such file or directory$/,
  },
};

for (const [name, { material, error }] of Object.entries(wrong)) {
  test(`refused, naming what is wrong: ${name}`, (t) => {
    const loop = testLoop(t);
    const before = openDescriptors();
    let thrown: Error & { code?: string };
    try {
      loop.newTlsContext({ ...serverMaterial, ...material });
      assert.fail('accepted');
    } catch (caught) {
      thrown = caught as Error;
    }
    assert.equal(thrown.code, 'TLS_CONTEXT_INVALID');
    assert.match(thrown.message, error);
    assertNothingOpened(before);
    // One bad certificate leaves nothing behind that spoils the next.
    loop.newTlsContext(serverMaterial);
  });
}

test('a key log that is a pipe or a link is refused, and nothing of it stays open', (t) => {
  const loop = testLoop(t);
  const folder = temporaryFolder(t);
  const pipe = join(folder, 'pipe');
  const link = join(folder, 'link');
  assert.equal(spawnSync('mkfifo', [pipe]).status, 0);
  symlinkSync(join(folder, 'elsewhere'), link);
  const refused = (keyLogPath: string, message: RegExp) => {
    const before = openDescriptors();
    assert.throws(() => loop.newTlsContext({ ...serverMaterial, keyLogPath }), {
      code: 'TLS_CONTEXT_INVALID',
      message,
    });
    assertNothingOpened(before);
  };
  const reader = openSync(pipe, constants.O_RDWR);
  refused(pipe, /^cannot open the TLS key log '.*pipe': not a regular file$/);
  closeSync(reader);
  // Nobody reads it now.
  refused(pipe, /^cannot open the TLS key log '.*pipe': not a regular file$/);
  refused(link, /^cannot open the TLS key log '.*link': Too many levels of symbolic links$/);
  assert.equal(existsSync(join(folder, 'elsewhere')), false);
});

test('an unreadable root among good ones is passed over', async (t) => {
  const loop = testLoop(t);
  const rootsPem = createAuthority('other').rootPem + UNREADABLE + authority.rootPem + UNREADABLE;
  const { client, server } = await startedTlsPair(loop, { ...clientMaterial, rootsPem }, chained);
  await Promise.all([client.told('secured'), server.told('secured')]);
});

test('a root is trusted whoever has signed it', async (t) => {
  const loop = testLoop(t);
  const intermediate = chained.chainPem.split(/(?=-----BEGIN)/)[1]!;
  const { client, server } = await startedTlsPair(loop, { ...clientMaterial, rootsPem: intermediate }, chained);
  await Promise.all([client.told('secured'), server.told('secured')]);
});

test('a certificate is replaced under connections that go on', async (t) => {
  const loop = testLoop(t);
  const renewed = authority.material({ uris: [SERVER_ID, 'https://renewed/'] });
  const old = loop.newTlsContext(serverMaterial);
  const first = await connectedPair(loop);
  loop.startTls(first.server.channel, old, 'server', [], 'cluster.local');
  // In the middle of a handshake.
  loop.freeTlsContext(old);
  startClient(first.client, clientMaterial);
  await Promise.all([first.client.told('secured'), first.server.told('secured')]);
  const second = await startedTlsPair(loop, clientMaterial, renewed);
  await Promise.all([second.client.told('secured'), second.server.told('secured')]);
  for (const { client, server } of [first, second]) {
    client.send('hello');
    await server.until(() => server.text === 'hello');
  }
  assert.throws(() => loop.startTls(second.client.channel, old, 'client', [], ''), { code: 'TLS' });
});

test('TLS starts once, and not on a connection that is ending', async (t) => {
  const loop = testLoop(t);
  const { client, server } = await startedTlsPair(loop, clientMaterial, serverMaterial);
  assert.throws(() => startClient(client, clientMaterial), { code: 'TLS' });
  // Nothing can be written before the peer is known.
  assert.equal(client.send('early'), -1);
  await Promise.all([client.told('secured'), server.told('secured')]);
  assert.throws(() => startServer(server, serverMaterial), { code: 'TLS' });
  client.send('unharmed');
  await server.until(() => server.text === 'unharmed');
  const plain = await connectedPair(loop);
  loop.shutdown(plain.client.channel);
  assert.throws(() => startClient(plain.client, clientMaterial), { code: 'TLS' });
});

test('bytes written before TLS starts go first', async (t) => {
  const loop = testLoop(t);
  const { client, server } = await connectedPair(loop);
  client.send('plain greeting');
  startClient(client, clientMaterial);
  server.limit = 14;
  server.on = (event) => event === 'data' && server.text === 'plain greeting' && startServer(server, serverMaterial);
  server.resume();
  await Promise.all([client.told('secured'), server.told('secured')]);
  client.send(' and secret');
  await server.until(() => server.text === 'plain greeting and secret');
});

test('keys are logged when asked for, to a file of the owner only', async (t) => {
  const loop = testLoop(t);
  const keyLogPath = join(temporaryFolder(t), 'keys.log');
  const { client, server } = await startedTlsPair(loop, { ...clientMaterial, keyLogPath }, serverMaterial);
  await Promise.all([client.told('secured'), server.told('secured')]);
  const lines = readFileSync(keyLogPath, 'latin1').trimEnd().split('\n');
  assert.deepEqual(lines.map((line) => line.split(' ')[0]).sort(), [
    'CLIENT_HANDSHAKE_TRAFFIC_SECRET',
    'CLIENT_TRAFFIC_SECRET_0',
    'EXPORTER_SECRET',
    'SERVER_HANDSHAKE_TRAFFIC_SECRET',
    'SERVER_TRAFFIC_SECRET_0',
  ]);
  for (const line of lines) assert.match(line, /^[A-Z_0]+ [0-9a-f]{64} [0-9a-f]{96}$/);
  assert.equal(statSync(keyLogPath).mode & 0o777, 0o600);
  // Another connection appends; nobody else writes there.
  const second = await startedTlsPair(loop, { ...clientMaterial, keyLogPath }, serverMaterial);
  await Promise.all([second.client.told('secured'), second.server.told('secured')]);
  assert.equal(readFileSync(keyLogPath, 'latin1').trimEnd().split('\n').length, 10);
});

test('keys are not logged when nobody asks, whatever the environment says', async (t) => {
  const loop = testLoop(t);
  const path = join(temporaryFolder(t), 'keys.log');
  process.env.SSLKEYLOGFILE = path;
  t.after(() => delete process.env.SSLKEYLOGFILE);
  const { client, server } = await startedTlsPair(loop, clientMaterial, serverMaterial);
  await Promise.all([client.told('secured'), server.told('secured')]);
  assert.equal(existsSync(path), false);
  loop.close(client.channel);
  await server.told('ended');
  await nextTurns();
  assertLog(server, ['secured', 'ended']);
});
