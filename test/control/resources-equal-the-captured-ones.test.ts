import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { parseAllDocuments } from 'yaml';
import { xxHash64 } from '../../src/control/mesh/xxhash64.ts';
import { dumpMesh } from '../../src/state/dump.ts';
import { type CapturedMesh, readCapturedMesh } from '../state/captured-mesh.ts';
import { decode } from '../support/xds-schema.ts';
import { agentView } from './support/agent-view.ts';
import { asAddress, type Manifest, meshUnderTest, readable } from './support/mesh-under-test.ts';

interface Captured {
  readonly name: string;
  readonly version: string;
  readonly resource: { readonly value: Buffer };
}

function captured(type: string): Captured[] {
  const bytes = readFileSync(new URL(`../xds/fixtures/xds-delta-response-${type}.bin`, import.meta.url));
  return (decode('DeltaDiscoveryResponse', bytes) as { resources: Captured[] }).resources;
}

const objects = parseAllDocuments(readFileSync(new URL('support/captured-objects.yaml', import.meta.url), 'utf8')).map(
  (document) => document.toJS() as Manifest,
);

/** istiod attaches selector policies to workloads without labels as well, which is a defect (control-01 §2.4). */
const WITHOUT_LABELS = [
  'Kubernetes//Pod/demo/client',
  'Kubernetes//Pod/demo/other',
  'Kubernetes/networking.istio.io/ServiceEntry/demo/dns/dns.example.com',
];

test('addresses are those that istiod sent for the same objects, byte by byte', async () => {
  const { mesh, put, rejected } = meshUnderTest();
  await put(...objects);
  assert.deepEqual(rejected, []);
  const wanted = captured('address');
  assert.deepEqual(
    [...mesh.resources.addresses()].map(({ name }) => name).sort(),
    wanted.map(({ name }) => name).sort(),
  );
  for (const { name, version, resource } of wanted) {
    const made = mesh.resources.address(name)!;
    const expected = asAddress(resource.value);
    if (WITHOUT_LABELS.includes(name)) {
      const policies = (expected.authorizationPolicies as string[]).filter((key) => key !== 'demo/allow-client');
      assert.deepEqual(asAddress(made.body), { ...expected, authorizationPolicies: policies });
    } else {
      assert.deepEqual(asAddress(made.body), expected);
      assert.equal(Buffer.from(made.body).toString('hex'), resource.value.toString('hex'), name);
      assert.equal(made.version, version);
    }
  }
});

test('policies are those that istiod sent for the same objects, byte by byte', async () => {
  const { mesh, put } = meshUnderTest();
  await put(...objects);
  const wanted = captured('authorization');
  assert.deepEqual(
    [...mesh.resources.policies()].map(({ name }) => name).sort(),
    wanted.map(({ name }) => name).sort(),
  );
  for (const { name, resource } of wanted) {
    const made = mesh.resources.policy(name)!;
    assert.deepEqual(readable(decode('Authorization', made.body)), readable(decode('Authorization', resource.value)));
    assert.equal(Buffer.from(made.body).toString('hex'), resource.value.toString('hex'), name);
    assert.equal(made.version, '');
  }
});

test('versions are hashed as istiod hashes', () => {
  for (const { name, version, resource } of captured('address')) assert.equal(xxHash64(resource.value), version, name);
});

test('an agent dumps them as the incumbent dumped what istiod sent', async () => {
  const { mesh, put } = meshUnderTest();
  await put(...objects);
  const captured = readCapturedMesh();
  const dumped = JSON.parse(JSON.stringify(dumpMesh(agentView(mesh.resources)))) as CapturedMesh;
  const workloads = captured.workloads.map((each) => {
    const { authorizationPolicies } = each as { authorizationPolicies?: string[] };
    if (!WITHOUT_LABELS.includes(each.uid) || authorizationPolicies === undefined) return each;
    return { ...each, authorizationPolicies: authorizationPolicies.filter((key) => key !== 'demo/allow-client') };
  });
  for (const { services } of dumped.workloads) services?.sort();
  assert.deepEqual(dumped, { ...captured, workloads });
});
