import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { createCertificateAuthority } from '../../../src/control/ca/certificate-authority.ts';
import {
  formatRootState,
  materialOf,
  newRootState,
  parseRootState,
  type RootState,
  type RotationPolicy,
  rotate,
} from '../../../src/control/ca/root-state.ts';
import { pathToRoot } from '../../../src/identity/path-to-root.ts';
import { splitCertificates } from '../../../src/identity/pem.ts';
import { generateWorkloadKey } from '../../../src/identity/workload-key.ts';
import { keyKinds, makeRoot, openssl } from '../../identity/openssl.ts';
import { scratchFolder } from '../../identity/scratch.ts';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const START = Date.UTC(2030, 0);
const POLICY: RotationPolicy = {
  trustDomain: 'cluster.local',
  lifeMs: 3650 * DAY,
  graceShare: 0.2,
  overlapMs: 2 * DAY,
};

/** A mesh in which time passes: a CA whose state is stored and read again, and agents that renew late. */
async function mesh(policy: RotationPolicy, ttlMs: number) {
  let now = START;
  let state = await newRootState(policy, now);
  const steps: { readonly step: string; readonly at: number }[] = [];
  const ca = createCertificateAuthority(
    {
      where: 'test',
      material: () => materialOf(state, 'test'),
      revocationLists: () => null,
      onChange() {},
      close() {},
    },
    () => now,
  );
  const agents: { leaf: X509Certificate; roots: readonly X509Certificate[] }[] = [];
  async function issue(): Promise<(typeof agents)[number]> {
    const { publicKey } = await generateWorkloadKey();
    const request = { names: ['spiffe://cluster.local/ns/a/sa/b'], commonName: null, ttlMs };
    const { certPem, rootsPem } = await ca.issue(request, publicKey);
    return {
      leaf: new X509Certificate(certPem),
      roots: splitCertificates(rootsPem).map((pem) => new X509Certificate(pem)),
    };
  }
  return {
    steps,
    agents,
    state: () => state,
    now: () => now,
    /** Does what is due, as the holder of the lease would. */
    async tend(isAsked = false): Promise<void> {
      const due = await rotate(state, policy, now, isAsked);
      if (due === null) return;
      steps.push({ step: due.step, at: now });
      const stored = Object.entries(formatRootState(due.state)).filter(
        (entry): entry is [string, string] => entry[1] !== null,
      );
      state = parseRootState(Object.fromEntries(stored), 'test');
    },
    issue,
    /** Each agent keeps its certificate nearly to the end; one of them is new each time. */
    async pass(ms: number): Promise<void> {
      now += ms;
      for (const [index, { leaf }] of agents.entries()) {
        if (now > leaf.validToDate.getTime() - ms) agents[index] = await issue();
      }
    },
    /** Everybody verifies everybody, and what the CA publishes verifies everybody. */
    check(): void {
      const published = splitCertificates(materialOf(state, 'test').rootsPem).map((pem) => new X509Certificate(pem));
      for (const { leaf } of agents) {
        assert.ok(leaf.validToDate.getTime() > now);
        for (const roots of [published, ...agents.map((agent) => agent.roots)]) {
          assert.ok(pathToRoot(leaf, [], roots), `at ${new Date(now).toISOString()}`);
        }
      }
    },
  };
}

test('while a root is replaced, every certificate is trusted by everybody at every moment', async () => {
  const world = await mesh(POLICY, 47 * HOUR);
  for (let agent = 0; agent < 5; agent++) {
    world.agents.push(await world.issue());
    await world.pass(5 * HOUR);
  }
  await world.tend(true);
  for (let hour = 0; hour < 6 * 24; hour++) {
    await world.pass(HOUR);
    await world.tend();
    world.check();
  }
  assert.deepEqual(
    world.steps.map(({ step }) => step),
    ['publish the next root', 'sign with the next root', 'forget the old root'],
  );
  const [published, switched, forgotten] = world.steps.map(({ at }) => at);
  assert.equal(switched! - published!, POLICY.overlapMs);
  assert.equal(forgotten! - switched!, POLICY.overlapMs);
  assert.equal(world.state().retired.length, 0);
});

test('a root is replaced by itself long before it ends, and again', async () => {
  const policy = { ...POLICY, lifeMs: 100 * DAY, overlapMs: 10 * DAY };
  const world = await mesh(policy, 9 * DAY);
  world.agents.push(await world.issue(), await world.issue());
  for (let day = 0; day < 400; day++) {
    await world.pass(DAY);
    await world.tend();
    world.check();
  }
  const published = world.steps
    .filter(({ step }) => step === 'publish the next root')
    .map(({ at }) => (at - START) / DAY);
  assert.equal(published.length, 5);
  // Twice the overlap is left then, which here is as much as a fifth of its life.
  assert.equal(published[0], 80);
});

test('a root that lives too short for the whole overlap still goes through all steps before it ends', async () => {
  const policy = { ...POLICY, lifeMs: 10 * HOUR };
  const world = await mesh(policy, 30 * 60_000);
  world.agents.push(await world.issue(), await world.issue());
  for (let minutes = 0; minutes < 48 * 60; minutes += 10) {
    await world.pass(600_000);
    await world.tend();
    world.check();
  }
  assert.ok(world.steps.length > 10);
});

test('a root that has ended is replaced at once', async () => {
  const world = await mesh(POLICY, HOUR);
  await world.pass(3700 * DAY);
  await world.tend();
  await world.tend();
  assert.deepEqual(
    world.steps.map(({ step }) => step),
    ['publish the next root', 'sign with the next root'],
  );
  world.agents.push(await world.issue());
  world.check();
});

test('openssl verifies old and new certificates by what is published at each step', async (t) => {
  const folder = scratchFolder(t);
  const world = await mesh(POLICY, 47 * HOUR);
  world.agents.push(await world.issue());
  const verify = () => {
    writeFileSync(join(folder, 'roots.pem'), materialOf(world.state(), 'test').rootsPem);
    for (const { leaf } of world.agents) {
      writeFileSync(join(folder, 'leaf.pem'), leaf.toString());
      const time = String(Math.floor(world.now() / 1000));
      const said = openssl(folder, 'verify', '-x509_strict', '-attime', time, '-CAfile', 'roots.pem', 'leaf.pem');
      assert.equal(said, 'leaf.pem: OK\n');
    }
  };
  verify();
  await world.tend(true);
  verify();
  await world.pass(2 * DAY);
  world.agents.push(await world.issue());
  await world.tend();
  world.agents.push(await world.issue());
  verify();
  assert.equal(splitCertificates(materialOf(world.state(), 'test').rootsPem).length, 2);
});

test('roots that an operator has added are kept', async () => {
  const other = await newRootState({ ...POLICY, trustDomain: 'other.mesh' }, START);
  const state: RootState = { ...(await newRootState(POLICY, START)), further: [other.active.cert] };
  const published = await rotate(state, POLICY, START, true);
  const switched = await rotate(published!.state, POLICY, START + 2 * DAY, false);
  const forgotten = await rotate(switched!.state, POLICY, START + 4 * DAY, false);
  for (const { state: each } of [published!, switched!, forgotten!]) {
    assert.match(materialOf(each, 'test').rootsPem, new RegExp(RegExp.escape(other.active.cert.toString())));
  }
});

test('keys of a state do not show when it is printed', async () => {
  const { inspect } = await import('node:util');
  const state = await newRootState(POLICY, START);
  const { key } = state.active;
  const secret = key.export({ format: 'jwk' }).d!;
  for (const text of [inspect(state, { depth: 9 }), JSON.stringify(state)]) {
    assert.doesNotMatch(text, /PRIVATE KEY/);
    assert.ok(!text.includes(secret));
  }
});

test('data that does not fit together is refused by name', async () => {
  const state = await newRootState(POLICY, START);
  const good = Object.fromEntries(
    Object.entries(formatRootState(state)).filter(([, value]) => value !== null),
  ) as Record<string, string>;
  const other = formatRootState(await newRootState(POLICY, START)) as Record<string, string>;
  const bad: readonly (readonly [Record<string, string>, RegExp])[] = [
    [{ ...good, 'ca-cert.pem': '' }, /ca-cert\.pem has no certificate/],
    [{ ...good, 'ca-key.pem': '' }, /ca-key\.pem is not a private key/],
    [{ ...good, 'ca-key.pem': other['ca-key.pem']! }, /ca-key\.pem does not belong to ca-cert\.pem/],
    [{ ...good, 'rotation.json': '{' }, /rotation\.json cannot be read/],
    [
      { ...good, 'rotation.json': '{"next":{"since":"soon"},"retired":[],"former":[]}' },
      /rotation\.json cannot be read/,
    ],
    [
      { ...good, 'rotation.json': '{"next":{"since":"2030-01-01T00:00:00Z"},"retired":[],"former":[]}' },
      /next-cert\.pem has no cert/,
    ],
    [{ ...good, 'ca-cert.pem': '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n' }, /cannot be read/],
  ];
  parseRootState(good, 'test');
  for (const [data, message] of bad) assert.throws(() => parseRootState(data, 'test'), { code: 'CA_INVALID', message });
});

test('a root of istiod is gone on with, and replaced by one of our own', async (t) => {
  const folder = scratchFolder(t);
  makeRoot(folder, 'root', {
    key: keyKinds['RSA 2048 in PKCS#1']!,
    extensions: 'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\n',
    subject: '/O=cluster.local',
  });
  const text = (name: string) => readFileSync(join(folder, name), 'utf8');
  const cert = text('root.crt');
  const files = { 'ca-cert.pem': cert, 'ca-key.pem': text('root.key'), 'root-cert.pem': cert };
  const state = parseRootState({ ...files, 'cert-chain.pem': '', 'key.pem': '' }, 'test');
  assert.equal(state.further.length, 0);
  const source = { where: 'test', revocationLists: () => null, onChange() {}, close() {} };
  const ca = createCertificateAuthority({ ...source, material: () => materialOf(state, 'test') });
  const { publicKey } = await generateWorkloadKey();
  const request = { names: ['spiffe://cluster.local/ns/a/sa/b'], commonName: null, ttlMs: HOUR };
  const { certPem } = await ca.issue(request, publicKey);
  writeFileSync(join(folder, 'leaf.pem'), certPem);
  const said = openssl(folder, 'verify', '-x509_strict', '-CAfile', 'root.crt', 'leaf.pem');
  assert.equal(said, 'leaf.pem: OK\n');
  const published = await rotate(state, POLICY, Date.now(), true);
  const switched = await rotate(published!.state, POLICY, Date.now() + 2 * DAY, false);
  assert.equal(switched!.state.active.key.asymmetricKeyType, 'ec');
  assert.equal(switched!.state.retired[0]!.cert.toString(), new X509Certificate(cert).toString());
});
