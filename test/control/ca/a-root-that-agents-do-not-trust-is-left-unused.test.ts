import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { ALLOW_NEW_ROOT, keepConfigMap, TRUST_BUNDLE } from '../../../src/control/ca/kept-config-map.ts';
import { openPluggedCa } from '../../../src/control/ca/plugged-ca.ts';
import { openRootSecret } from '../../../src/control/ca/root-secret.ts';
import { formatRootState, newRootState, type RootState } from '../../../src/control/ca/root-state.ts';
import { openTrustGate } from '../../../src/control/ca/trust-gate.ts';
import { alwaysHeld } from '../../../src/control/lease.ts';
import { splitCertificates } from '../../../src/identity/pem.ts';
import { createKubeApi } from '../../../src/kube/api.ts';
import { createLogger } from '../../../src/log/logger.ts';
import { type ApiServer, noApiServer, startApiServer } from '../../cni/support/api-server.ts';
import { eventually } from '../../cni/support/eventually.ts';
import { layOut } from '../../identity/ca-folders.ts';
import { makeRoot } from '../../identity/openssl.ts';
import { scratchFolder } from '../../identity/scratch.ts';

const POLICY = { trustDomain: 'cluster.local', lifeMs: 3650 * 86_400_000, graceShare: 0.2, overlapMs: 3_600_000 };
const SECRETS = '/api/v1/namespaces/default/secrets';
const SECRET = `${SECRETS}/istio-ca-secret`;
const MAP = '/api/v1/namespaces/default/configmaps/istio-ca-root-cert';
const PERMIT = { metadata: { annotations: { [ALLOW_NEW_ROOT]: 'now' } } };

/** A replica that starts, holding the lease: with the CA of a folder, or else with the Secret. */
async function start(t: TestContext, server: ApiServer, dir?: string) {
  const { port, serviceAccountDir } = server;
  const api = createKubeApi({ host: '127.0.0.1', port, serviceAccountDir });
  const lines: string[] = [];
  const log = createLogger({ format: 'plain', level: 'debug', write: (line) => void lines.push(line) });
  const namespace = 'default';
  const gate = openTrustGate({ api, namespace, log });
  const secret = { api, namespace, name: 'istio-ca-secret', lease: alwaysHeld, policy: POLICY, gate, log };
  const source = gate.guard(
    dir === undefined ? openRootSecret(secret) : await openPluggedCa({ dir, create: null, gate, log, interval: 20 }),
  );
  const value = () => source.material()?.rootsPem ?? null;
  const map = keepConfigMap({ ...TRUST_BUNDLE, api, namespace, lease: alwaysHeld, log, value });
  source.onChange(() => map.update());
  let closed = false;
  const close = () => {
    if (closed) return;
    closed = true;
    source.close();
    map.close();
    api.close();
  };
  t.after(close);
  return {
    close,
    roots: value,
    complains: (text: string) => eventually(text, () => lines.some((line) => line.includes(text))),
  };
}

async function published(server: ApiServer): Promise<string | undefined> {
  return ((await server.call('GET', MAP)).body.data as Record<string, string> | undefined)?.['root-cert.pem'];
}

async function isPermitted(server: ApiServer): Promise<boolean> {
  const { annotations = {} } = (await server.call('GET', MAP)).body.metadata as { annotations?: object };
  return Object.hasOwn(annotations, ALLOW_NEW_ROOT);
}

function encoded(state: RootState): Record<string, string | null> {
  return Object.fromEntries(Object.entries(formatRootState(state)).map(([key, pem]) => [key, pem && btoa(pem)]));
}

test('a replica does not start with a root that agents do not trust', { skip: noApiServer }, async (t) => {
  const server = await startApiServer(t);
  const first = await start(t, server);
  await eventually('a root is made and published', async () => {
    const roots = first.roots();
    return roots !== null && (await published(server)) === roots;
  });
  const original = first.roots()!;
  const good = (await server.call('GET', SECRET)).body.data as Record<string, string>;
  first.close();

  await t.test('the root that is published is used', async (t) => {
    const again = await start(t, server);
    await eventually('it signs', () => again.roots() === original);
  });

  await t.test('a lost Secret is not replaced by a new root, and used when it is restored', async (t) => {
    await server.call('DELETE', SECRET);
    const replica = await start(t, server);
    await replica.complains('the root of the mesh is lost');
    await delay(500);
    assert.equal((await server.call('GET', SECRET)).status, 404);
    assert.equal(await published(server), original);
    await server.create(SECRETS, { metadata: { name: 'istio-ca-secret' }, data: good } as never);
    await eventually('it signs', () => replica.roots() === original);
  });

  await t.test('a Secret with another root is not used, until that of before is back', async (t) => {
    const stranger = encoded(await newRootState(POLICY, Date.now()));
    await server.call('PATCH', SECRET, { data: stranger });
    const replica = await start(t, server);
    await replica.complains('CA_NOT_TRUSTED_YET');
    await delay(500);
    assert.equal(replica.roots(), null);
    assert.equal(await published(server), original);
    await server.call('PATCH', SECRET, { data: good });
    await eventually('it signs', () => replica.roots() === original);
    // From now on the next ones are compared with it.
    await server.call('PATCH', SECRET, { data: stranger });
    await replica.complains('and the one of before goes on signing');
    assert.equal(replica.roots(), original);
    await server.call('PATCH', SECRET, { data: good });
  });

  const folder = scratchFolder(t);
  makeRoot(folder, 'own');
  const own = { key: ['own.key'], cert: ['own.crt'], chain: ['own.crt'], roots: ['own.crt'] };
  const dir = layOut(folder, own);
  const ownPem = splitCertificates(readFileSync(join(folder, 'own.crt'), 'utf8'))[0]!;

  await t.test('a plugged-in CA of another root is not used, until that root was published', async (t) => {
    const replica = await start(t, server, dir);
    await replica.complains('CA_NOT_TRUSTED_YET');
    await delay(500);
    assert.equal(replica.roots(), null);
    assert.equal(await published(server), original);
    writeFileSync(join(dir, 'root-cert.pem'), ownPem + original);
    await server.call('PATCH', MAP, { data: { 'root-cert.pem': original + ownPem } });
    await eventually('it signs', () => splitCertificates(replica.roots() ?? '').length === 2);
    await eventually('both are published', async () => (await published(server)) === replica.roots());
    replica.close();
    await server.call('PATCH', MAP, { data: { 'root-cert.pem': original } });
  });

  await t.test('a plugged-in CA of another root is used when that is permitted, once', async (t) => {
    const replica = await start(t, server, dir);
    await replica.complains('CA_NOT_TRUSTED_YET');
    await server.call('PATCH', MAP, PERMIT);
    await eventually('it signs and is published', async () => (await published(server))?.startsWith(ownPem) === true);
    assert.equal(await isPermitted(server), false);
  });

  await t.test('a root that has ended holds nobody up', async (t) => {
    const ended = await newRootState({ ...POLICY, lifeMs: 1000 }, Date.now() - 86_400_000);
    await server.call('PATCH', MAP, { data: { 'root-cert.pem': ended.active.cert.toString() } });
    const replica = await start(t, server, dir);
    await eventually('it signs and is published', async () => (await published(server))?.startsWith(ownPem) === true);
    replica.close();
  });

  await t.test('a lost root is replaced when that is permitted', async (t) => {
    await server.call('DELETE', SECRET);
    const replica = await start(t, server);
    await replica.complains('the root of the mesh is lost');
    await server.call('PATCH', MAP, PERMIT);
    await eventually('a new one signs', () => replica.roots() !== null);
    await eventually('it is published', async () => (await published(server)) === replica.roots());
    assert.notEqual(replica.roots(), original);
    assert.equal(await isPermitted(server), false);
  });
});
