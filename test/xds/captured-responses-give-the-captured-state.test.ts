import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { dumpMesh } from '../../src/state/dump.ts';
import { createMeshState } from '../../src/state/store.ts';
import { readCapturedMesh } from '../state/captured-mesh.ts';
import { intakeOf, takeIn } from './support/taken-in.ts';

const fixture = (name: string) => readFileSync(new URL(`fixtures/xds-delta-response-${name}.bin`, import.meta.url));

for (const size of [1, 7, 1000, 1 << 20]) {
  test(`istiod's responses in pieces of ${size} bytes give what the incumbent made of them`, () => {
    const store = createMeshState({ localNode: '' });
    const intake = intakeOf(store);
    const addresses = takeIn(intake, fixture('address'), size);
    const policies = takeIn(intake, fixture('authorization'), size);
    const { workloads, services, policies: dumped, stagedServices } = dumpMesh(store);
    assert.deepEqual(plain({ workloads, services, policies: dumped, stagedServices }), readCapturedMesh());
    assert.deepEqual([...addresses.rejected, ...policies.rejected], []);
    assert.equal(addresses.typeUrl, 'type.googleapis.com/istio.workload.Address');
    assert.equal(policies.typeUrl, 'type.googleapis.com/istio.security.Authorization');
    assert.match(policies.nonce, /^2026-11-20T20:46:31Z\/990b2828/);
    assert.equal(intake.addresses.size, addresses.push.resources);
    assert.equal(addresses.push.resources, workloads.length + services.length);
  });
}

function plain(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value));
}
