import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Secret } from '../../src/config/secret.ts';
import { splitCertificates } from '../../src/identity/pem.ts';
import { privateKeyPem } from '../../src/identity/workload-key.ts';
import { eventually } from '../cni/support/eventually.ts';
import { freePort } from '../support/free-ports.ts';
import { makeTestCa } from '../support/istio-ca-server.ts';
import { clientOf, IDENTITY, literal, serverOf, testCa } from './istio-ca-under-test.ts';
import { openssl } from './openssl.ts';
import { scratchFolder } from './scratch.ts';

test('a certificate is asked for as istiod expects it, and is what openssl accepts', async (t) => {
  const ca = await testCa(t, { token: 'tooken' });
  const server = serverOf(ca, {
    token: literal('tooken'),
    clusterId: 'east',
    headers: [{ name: 'x-tenant', value: new Secret('blue') }],
  });
  const { client, logged } = await clientOf(t, server, { ttl: 3_600_000 });
  const certificate = await client.sign(IDENTITY);

  const [request, ...others] = ca.seen;
  assert.equal(others.length, 0);
  assert.equal(request!.identity, IDENTITY);
  assert.equal(request!.validitySeconds, 3600);
  assert.equal(request!.headers.authorization, 'Bearer tooken');
  assert.equal(request!.headers.clusterid, 'east');
  assert.equal(request!.headers['x-tenant'], 'blue');

  const folder = scratchFolder(t);
  writeFileSync(join(folder, 'request.csr'), request!.csr);
  const text = openssl(folder, 'req', '-in', 'request.csr', '-verify', '-noout', '-text');
  assert.match(text, /Subject: *\n/);
  assert.match(text, /NIST CURVE: P-256/);
  assert.match(text, /Signature Algorithm: ecdsa-with-SHA256/);
  assert.match(
    text,
    /X509v3 Subject Alternative Name: critical\n\s+URI:spiffe:\/\/cluster\.local\/ns\/default\/sa\/web\n/,
  );
  assert.equal(text.match(/X509v3 [A-Z]/g)?.length, 1, 'nothing else is asked for');

  const [leaf, ...intermediates] = splitCertificates(certificate.chainPem);
  writeFileSync(join(folder, 'leaf.pem'), leaf!);
  writeFileSync(join(folder, 'intermediates.pem'), intermediates.join(''));
  writeFileSync(join(folder, 'roots.pem'), certificate.rootsPem);
  const verify = ['verify', '-x509_strict', '-CAfile', 'roots.pem', '-untrusted', 'intermediates.pem', 'leaf.pem'];
  assert.equal(openssl(folder, ...verify), 'leaf.pem: OK\n');
  const parsed = new X509Certificate(leaf!);
  assert.ok(parsed.checkPrivateKey(certificate.privateKey));
  assert.equal(certificate.identity, IDENTITY);
  assert.equal(certificate.serial, BigInt(`0x${parsed.serialNumber}`).toString());
  assert.equal(certificate.notAfter, parsed.validToDate.getTime());
  assert.equal(certificate.rootsPem, new X509Certificate(readFileSync(ca.rootsFile)).toString());
  assert.deepEqual(logged, []);
});

test('every certificate has a key of its own', async (t) => {
  const ca = await testCa(t);
  const { client } = await clientOf(t, serverOf(ca));
  const all = await Promise.all([client.sign(IDENTITY), client.sign(IDENTITY), client.sign(`${IDENTITY}2`)]);
  assert.equal(new Set(all.map(({ privateKey }) => privateKeyPem(privateKey))).size, 3);
});

test('a token file is read again for every request', async (t) => {
  const path = join(scratchFolder(t), 'token');
  writeFileSync(path, 'first\n');
  const ca = await testCa(t);
  const { client } = await clientOf(t, serverOf(ca, { token: { kind: 'file', path } }));
  await client.sign(IDENTITY);
  writeFileSync(path, 'second');
  await client.sign(IDENTITY);
  assert.deepEqual(
    ca.seen.map(({ headers }) => headers.authorization),
    ['Bearer first', 'Bearer second'],
  );
});

test('without a token no authorization is sent', async (t) => {
  const ca = await testCa(t);
  const { client } = await clientOf(t, serverOf(ca));
  await client.sign(IDENTITY);
  assert.equal(ca.seen[0]!.headers.authorization, undefined);
});

test('a certificate costs one request on a connection that is there, also after the server has ended it', async (t) => {
  const ca = await testCa(t);
  const { client } = await clientOf(t, serverOf(ca));
  for (let round = 0; round < 3; round++) {
    await client.sign(IDENTITY);
    ca.disconnect();
  }
  await client.sign(IDENTITY);
  assert.equal(ca.seen.length, 4);
});

/** A way to a CA that can be shut, and the connections on it. */
async function gateTo(t: TestContext, port: number) {
  const open = new Set<Socket>();
  const gate = { shut: false, open, address: '' };
  const server = createServer((socket) => {
    socket.on('error', () => {});
    if (gate.shut) return void socket.destroy();
    open.add(socket);
    const onward = connect(port, '127.0.0.1').on('error', () => socket.destroy());
    socket.on('close', () => open.delete(socket) && onward.destroy());
    onward.on('close', () => socket.destroy());
    socket.pipe(onward).pipe(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    for (const socket of open) socket.destroy();
    server.close();
  });
  gate.address = `https://127.0.0.1:${(server.address() as { port: number }).port}`;
  return gate;
}

test('after failures and a recovery there is one connection, and none once the client is closed', async (t) => {
  const ca = await testCa(t);
  const gate = await gateTo(t, ca.port);
  const { client } = await clientOf(t, serverOf({ address: gate.address, rootsFile: ca.rootsFile }));
  await client.sign(IDENTITY);
  gate.shut = true;
  for (const socket of gate.open) socket.destroy();
  for (let round = 0; round < 4; round++) {
    const requests = [1, 2, 3].map(() => client.sign(IDENTITY));
    for (const { status } of await Promise.allSettled(requests)) assert.equal(status, 'rejected');
  }
  gate.shut = false;
  await Promise.all([1, 2, 3].map(() => client.sign(IDENTITY)));
  // Longer than a channel waits before it connects again.
  await sleep(3000);
  assert.equal(gate.open.size, 1);
  client.close();
  await eventually('no connection is left', () => gate.open.size === 0);
});

test('replaced roots of the server are used for the next request', async (t) => {
  const folder = scratchFolder(t);
  makeTestCa(folder);
  const ca = await testCa(t, { folder, port: await freePort() });
  const roots = join(scratchFolder(t), 'root-cert.pem');
  writeFileSync(roots, readFileSync(ca.rootsFile));
  const { client, logged } = await clientOf(t, serverOf({ address: ca.address, rootsFile: roots }));
  await client.sign(IDENTITY);

  // The mesh gets a new root, and so the server a new certificate.
  ca.stop();
  const next = scratchFolder(t);
  makeTestCa(next);
  await testCa(t, { folder: next, port: ca.port });
  await assert.rejects(client.sign(IDENTITY), { code: 'CA_SERVER_NOT_TRUSTED' });
  writeFileSync(`${roots}.new`, readFileSync(join(next, 'root.crt')));
  renameSync(`${roots}.new`, roots);
  await client.sign(IDENTITY);

  // A file that is gone does not cost the connection.
  renameSync(roots, `${roots}.away`);
  await client.sign(IDENTITY);
  assert.match(logged.join('\n'), /cannot be read again, those of before stay in use.*ENOENT/);
});

test('a server under another name is accepted when ALT_CA_HOSTNAME says so', async (t) => {
  const folder = scratchFolder(t);
  makeTestCa(folder, 'DNS:istiod.other.svc');
  const ca = await testCa(t, { folder });
  const { client: refused } = await clientOf(t, serverOf(ca));
  await assert.rejects(refused.sign(IDENTITY), { code: 'CA_SERVER_NOT_TRUSTED', message: /set ALT_CA_HOSTNAME/ });
  const { client } = await clientOf(t, serverOf(ca, { altHostname: 'istiod.other.svc' }));
  await client.sign(IDENTITY);
});

test('roots that cannot be read are left out, and that is said', async (t) => {
  const ca = await testCa(t);
  const garbage = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n';
  ca.behave({ kind: 'say', chain: ([leaf, signer, root]) => [leaf!, signer!, `${garbage}${root}`] });
  const { client, logged } = await clientOf(t, serverOf(ca));
  const { rootsPem } = await client.sign(IDENTITY);
  assert.equal(splitCertificates(rootsPem).length, 1);
  assert.match(logged.join('\n'), /1 roots of the CA cannot be read/);
});

test('a trust anchor need not be self-signed', async (t) => {
  const folder = scratchFolder(t);
  makeTestCa(folder);
  const ca = await testCa(t, { folder });
  const { client } = await clientOf(t, serverOf({ address: ca.address, rootsFile: join(folder, 'server.crt') }));
  await client.sign(IDENTITY);
});
