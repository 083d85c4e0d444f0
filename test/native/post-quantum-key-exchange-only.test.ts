import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type TestContext, test } from 'node:test';
import { createServer, connect as tlsConnect } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { loadConfig } from '../../src/config/config.ts';
import { planeSettings } from '../../src/worker/settings.ts';
import { createAuthority } from './authority.ts';
import {
  CLIENT_ID,
  opensslIdentity,
  opensslPeer,
  SERVER_ID,
  startClient,
  startServer,
  temporaryFolder,
} from './secure-side.ts';
import { acceptSides, connectSide, LOCAL, type Side, testLoop } from './side.ts';

const authority = createAuthority();
// What COMPLIANCE_POLICY makes of it is what is tested.
const { tlsGroups: groups, tls12 } = planeSettings(await loadConfig({ COMPLIANCE_POLICY: 'pqc' }, []));
const clientMaterial = authority.material({ uris: [CLIENT_ID] }, { groups, tls12 });
const serverMaterial = authority.material({ uris: [SERVER_ID] }, { groups, tls12 });

async function accepting(t: TestContext) {
  const loop = testLoop(t);
  const accepted = Promise.withResolvers<Side>();
  const { port } = acceptSides(loop, accepted.resolve);
  return { loop, port, side: accepted.promise };
}

for (const [curves, works] of [
  ['X25519MLKEM768', true],
  ['X25519:P-256:P-384', false],
] as const) {
  const outcome = works ? 'connects' : 'is refused';

  test(`a client with ${curves} ${outcome}`, async (t) => {
    const { loop, port, side } = await accepting(t);
    const client = tlsConnect({
      ...{ host: LOCAL, port, ca: authority.rootPem, ALPNProtocols: ['h2'], ecdhCurve: curves },
      ...{ cert: clientMaterial.chainPem, key: clientMaterial.keyPem, checkServerIdentity: () => undefined },
    });
    t.after(() => client.destroy());
    client.on('error', () => {});
    const server = await side;
    startServer(server, serverMaterial);
    if (works) {
      await server.told('secured');
      assert.equal(loop.peer(server.channel)?.group, 'X25519MLKEM768');
    } else {
      assert.match(await server.told('failed'), /no suitable key share/);
    }
  });

  test(`a server with ${curves} ${works ? 'is connected to' : 'is refused'}`, async (t) => {
    const loop = testLoop(t);
    const server = createServer({
      ...{ cert: serverMaterial.chainPem, key: serverMaterial.keyPem, ca: authority.rootPem },
      ...{ requestCert: true, ALPNProtocols: ['h2'], ecdhCurve: curves },
    });
    server.on('tlsClientError', () => {});
    server.on('secureConnection', (socket) => t.after(() => socket.destroy()));
    server.listen(0, LOCAL);
    await once(server, 'listening');
    t.after(() => server.close());
    const client = connectSide(loop, (server.address() as { port: number }).port);
    await client.told('connected');
    startClient(client, clientMaterial);
    await client.told(works ? 'secured' : 'failed');
    assert.equal(loop.peer(client.channel)?.group, works ? 'X25519MLKEM768' : undefined);
  });
}

test('the stock openssl connects with X25519MLKEM768', async (t) => {
  const version = execFileSync('openssl', ['version'], { encoding: 'utf8' }).split(' ')[1] ?? '';
  const [major = 0, minor = 0] = version.split('.').map(Number);
  if (major < 3 || (major === 3 && minor < 5)) {
    t.skip(`the openssl of this machine is ${version}; ML-KEM came with 3.5 (node's own OpenSSL is the peer above)`);
    return;
  }
  const { loop, port, side } = await accepting(t);
  opensslPeer(t, [
    ...[
      's_client',
      '-connect',
      `${LOCAL}:${port}`,
      '-alpn',
      'h2',
      '-groups',
      'X25519MLKEM768',
      '-noservername',
      '-quiet',
    ],
    ...opensslIdentity(t, clientMaterial),
  ]);
  const server = await side;
  startServer(server, serverMaterial);
  await server.told('secured');
  assert.equal(loop.peer(server.channel)?.group, 'X25519MLKEM768');
});

/** A peer of Go's standard library, which has nothing of OpenSSL in it. */
const missingGo = spawnSync('go', ['version']).error !== undefined && 'not installed: go';

function goPeer(t: TestContext, args: readonly string[]) {
  const folder = temporaryFolder(t);
  const file = (name: string, text: string) => {
    writeFileSync(join(folder, name), text);
    return join(folder, name);
  };
  const program = join(folder, 'peer');
  const source = fileURLToPath(new URL('go-peer/main.go', import.meta.url));
  execFileSync('go', ['build', '-o', program, source], { env: { ...process.env, GO111MODULE: 'off' } });
  const peer = spawn(program, args, {
    env: {
      KEY: file('key.pem', clientMaterial.keyPem),
      CHAIN: file('chain.pem', clientMaterial.chainPem),
      ROOTS: file('roots.pem', authority.rootPem),
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => peer.kill());
  const lines = createInterface(peer.stdout)[Symbol.asyncIterator]();
  return { line: async () => (await lines.next()).value as string };
}

test('a client of Go connects with X25519MLKEM768', { skip: missingGo }, async (t) => {
  const { loop, port, side } = await accepting(t);
  const peer = goPeer(t, ['connect', `${LOCAL}:${port}`]);
  const server = await side;
  startServer(server, serverMaterial);
  await server.told('secured');
  assert.equal(loop.peer(server.channel)?.group, 'X25519MLKEM768');
  assert.equal(await peer.line(), 'agreed on X25519MLKEM768');
});

test('a server of Go is connected to with X25519MLKEM768', { skip: missingGo }, async (t) => {
  const loop = testLoop(t);
  const peer = goPeer(t, ['listen']);
  const client = await connectSide(loop, Number(await peer.line()));
  await client.told('connected');
  startClient(client, clientMaterial, [CLIENT_ID]);
  await client.told('secured');
  assert.equal(loop.peer(client.channel)?.group, 'X25519MLKEM768');
  assert.equal(await peer.line(), 'agreed on X25519MLKEM768');
});
