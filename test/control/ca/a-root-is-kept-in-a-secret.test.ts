import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { keepConfigMap, TRUST_BUNDLE } from '../../../src/control/ca/kept-config-map.ts';
import { openRootSecret, ROTATE_ROOT } from '../../../src/control/ca/root-secret.ts';
import { formatRootState, newRootState, type RootState, rotate } from '../../../src/control/ca/root-state.ts';
import { openTrustGate } from '../../../src/control/ca/trust-gate.ts';
import { alwaysHeld, type Lease } from '../../../src/control/lease.ts';
import { splitCertificates } from '../../../src/identity/pem.ts';
import { createKubeApi } from '../../../src/kube/api.ts';
import { createLogger } from '../../../src/log/logger.ts';
import { type ApiServer, noApiServer, startApiServer } from '../../cni/support/api-server.ts';
import { eventually } from '../../cni/support/eventually.ts';

const POLICY = { trustDomain: 'cluster.local', lifeMs: 3650 * 86_400_000, graceShare: 0.2, overlapMs: 2000 };
const PATH = '/api/v1/namespaces/default/secrets/istio-ca-secret';
const MAP = '/api/v1/namespaces/default/configmaps/istio-ca-root-cert';

/** A lease that is held when the test says so. */
function testLease(): Lease & { give(held: boolean): void } {
  let isHeld = false;
  const listeners: ((held: boolean) => void)[] = [];
  return {
    held: () => isHeld,
    onChange: (listener) => void listeners.push(listener),
    async close() {},
    give(held) {
      isHeld = held;
      for (const listener of listeners) listener(held);
    },
  };
}

function replica(t: TestContext, server: ApiServer, lease: Lease = alwaysHeld, policy = POLICY) {
  const { port, serviceAccountDir } = server;
  const api = createKubeApi({ host: '127.0.0.1', port, serviceAccountDir });
  const lines: string[] = [];
  const log = createLogger({ format: 'plain', level: 'debug', write: (line) => void lines.push(line) });
  const gate = openTrustGate({ api, namespace: 'default', log });
  const options = { api, namespace: 'default', name: 'istio-ca-secret', lease, policy, gate, log };
  const root = gate.guard(openRootSecret(options));
  const map = keepConfigMap({
    ...{ ...TRUST_BUNDLE, api, namespace: 'default', lease, log },
    value: () => root.material()?.rootsPem ?? null,
  });
  root.onChange(() => map.update());
  const close = () => {
    root.close();
    map.close();
    api.close();
  };
  t.after(close);
  return { root, lines, close, roots: () => splitCertificates(root.material()?.rootsPem ?? '') };
}

async function secretOf(server: ApiServer): Promise<Record<string, string>> {
  const { body } = await server.call('GET', PATH);
  return Object.fromEntries(
    Object.entries((body.data ?? {}) as Record<string, string>).map(([key, value]) => [key, atob(value)]),
  );
}

async function bundleOf(server: ApiServer): Promise<string | undefined> {
  const { body } = await server.call('GET', MAP);
  return (body.data as Record<string, string> | undefined)?.['root-cert.pem'];
}

test('the root of a mesh is kept in a Secret, and published', { skip: noApiServer }, async (t) => {
  const server = await startApiServer(t);

  await t.test('whoever does not hold the lease makes none', async (t) => {
    const { root, close } = replica(t, server, testLease());
    await delay(1000);
    assert.equal(root.material(), null);
    assert.equal((await server.call('GET', PATH)).status, 404);
    close();
  });

  const lease = testLease();
  const first = replica(t, server, lease);
  const second = replica(t, server, alwaysHeld);
  const third = replica(t, server, alwaysHeld);
  const all = [first, second, third];

  await t.test('of replicas that make one at the same time, all come to the same', async () => {
    await eventually('all have a root', () => all.every(({ root }) => root.material() !== null));
    const bundles = new Set(all.map(({ root }) => root.material()!.rootsPem));
    assert.equal(bundles.size, 1);
    const data = await secretOf(server);
    assert.equal(data['ca-cert.pem'], [...bundles][0]);
    assert.equal(data['root-cert.pem'], [...bundles][0]);
    assert.deepEqual([data['cert-chain.pem'], data['key.pem']], ['', '']);
    assert.equal((await server.call('GET', PATH)).body.type, 'istio.io/ca-root');
    second.close();
    third.close();
  });

  lease.give(true);
  const { root, lines } = first;
  const original = root.material()!.rootsPem;

  await t.test('the roots are published, and stay so when somebody edits or deletes them', async () => {
    await eventually('they are published', async () => (await bundleOf(server)) === original);
    const { body } = await server.call('GET', MAP);
    assert.deepEqual((body.metadata as { labels: unknown }).labels, { 'istio.io/config': 'true' });
    await server.call('PATCH', MAP, { data: { 'root-cert.pem': 'nonsense', other: 'kept' } });
    await eventually('they are restored', async () => (await bundleOf(server)) === original);
    assert.equal(((await server.call('GET', MAP)).body.data as Record<string, string>).other, 'kept');
    await server.call('DELETE', MAP);
    await eventually('they are there again', async () => (await bundleOf(server)) === original);
  });

  await t.test('a Secret that is deleted is made again with the same key', async () => {
    const before = await secretOf(server);
    await server.call('DELETE', PATH);
    await eventually('it is there again', async () => (await server.call('GET', PATH)).status === 200);
    assert.deepEqual(await secretOf(server), before);
  });

  await t.test('a Secret that cannot be used leaves the root of before in force and is not written to', async () => {
    const good = (await server.call('GET', PATH)).body.data as Record<string, string>;
    await server.call('PATCH', PATH, { data: { 'ca-key.pem': btoa('no key') } });
    await eventually('it is said', () => lines.some((line) => line.includes('ca-key.pem is not a private key')));
    assert.equal(root.material()!.rootsPem, original);
    await delay(500);
    assert.equal((await secretOf(server))['ca-key.pem'], 'no key');

    const stranger = formatRootState(await newRootState(POLICY, Date.now()));
    const encoded = Object.fromEntries(Object.entries(stranger).map(([key, value]) => [key, value && btoa(value)]));
    await server.call('PATCH', PATH, { data: encoded });
    await eventually('it is said', () => lines.some((line) => line.includes('a root that agents do not trust yet')));
    assert.equal(root.material()!.rootsPem, original);
    await server.call('PATCH', PATH, { data: good });
  });

  const reader = replica(t, server, testLease());
  await eventually('another one has the root', () => reader.root.material() !== null);
  /** What the roots of each have been, one after the other. */
  const steps = [first, reader].map(({ root, roots }) => {
    const all = [roots()];
    root.onChange(() => all.push(roots()));
    return all;
  });

  await t.test('without the lease nothing is written; with it again, everything', async () => {
    lease.give(false);
    await server.call('DELETE', MAP);
    await server.call('PATCH', PATH, { metadata: { annotations: { [ROTATE_ROOT]: 'now' } } });
    await delay(1500);
    assert.equal(await bundleOf(server), undefined);
    assert.equal((await secretOf(server))['root-cert.pem'], original);
    lease.give(true);
    await eventually('it is published', async () => (await bundleOf(server)) !== undefined);
  });

  await t.test('a rotation that was asked for goes through all steps, in every replica', async () => {
    const isOver = (roots: string[]) => roots.length === 1 && roots[0] !== original;
    await eventually('the old root is forgotten', () => [first, reader].every(({ roots }) => isOver(roots())));
    const [next] = first.roots();
    for (const replica of steps) {
      assert.deepEqual(replica, [[original], [original, next], [next, original], [next]]);
    }
    const { body } = await server.call('GET', PATH);
    assert.deepEqual((body.metadata as { annotations?: object }).annotations ?? {}, {});
    const data = await secretOf(server);
    assert.equal(data['next-key.pem'], undefined);
    assert.equal(data['ca-cert.pem'], next);
    await eventually('it is published', async () => (await bundleOf(server)) === next);
    assert.notEqual(new X509Certificate(next!).fingerprint256, new X509Certificate(original).fingerprint256);
  });

  await t.test('a replica that starts while the API server is away comes to the root when it is back', async (t) => {
    await server.freeze();
    const late = replica(t, server, alwaysHeld);
    await delay(500);
    assert.equal(late.root.material(), null);
    server.thaw();
    await eventually('it has the root', () => late.root.material()?.rootsPem === root.material()!.rootsPem);
  });

  assert.doesNotMatch(lines.join('\n'), /PRIVATE KEY/);
});

test('a replica that has missed a whole rotation takes the root that came of it, and no stranger', async (t) => {
  const watch = Promise.withResolvers<(line: string) => void>();
  const first = await newRootState(POLICY, Date.now());
  let version = 1;
  const secret = (state: RootState) => ({
    metadata: { name: 'istio-ca-secret', resourceVersion: String(version++) },
    data: Object.fromEntries(Object.entries(formatRootState(state)).map(([key, value]) => [key, value && btoa(value)])),
  });
  const api = {
    get: async () => ({ metadata: { resourceVersion: '1' }, items: [secret(first)] }),
    lines(_: string, onLine: (line: string) => void, __: number, signal: AbortSignal) {
      watch.resolve(onLine);
      return new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()));
    },
    create: () => Promise.reject(new Error('it does not hold the lease')),
    mergePatch: () => Promise.reject(new Error('it does not hold the lease')),
  };
  const log = createLogger({ format: 'plain', level: 'off', write() {} });
  const gate = { isOpen: () => true, mayCreateRoot: () => true, onChange() {} };
  const options = { api, namespace: 'default', name: 'istio-ca-secret', lease: testLease(), policy: POLICY, gate, log };
  const root = openRootSecret(options);
  t.after(() => root.close());
  const onLine = await watch.promise;
  const signsWith = (state: RootState) => root.material()!.anchor.fingerprint256 === state.active.cert.fingerprint256;
  assert.ok(signsWith(first));

  let latest = first;
  for (const [now, isAsked] of [
    [0, true],
    [5000, false],
    [10_000, false],
  ] as const) {
    latest = (await rotate(latest, POLICY, Date.now() + now, isAsked))!.state;
  }
  assert.equal(latest.retired.length, 0);
  const stranger = await newRootState(POLICY, Date.now());
  onLine(JSON.stringify({ type: 'MODIFIED', object: secret(stranger) }));
  assert.ok(signsWith(first));
  onLine(JSON.stringify({ type: 'MODIFIED', object: secret(latest) }));
  assert.ok(signsWith(latest));
});
