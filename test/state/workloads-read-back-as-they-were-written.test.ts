import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { WorkloadUpdate } from '../../src/state/mesh-state.ts';
import { createMeshState } from '../../src/state/store.ts';
import { byAddress, byHostname, workload } from './mesh-builder.ts';

const KEYS = ['default/a.example.com', 'default/b.example.com', 'other/c.example.com'];

/** Among few names, so that workloads are replaced as well. */
const anyWorkload: fc.Arbitrary<WorkloadUpdate> = fc
  .record({
    number: fc.nat(300),
    fields: fc.record({
      name: fc.constantFrom('', 'its-own-name', 'ü', 'two\nlines'),
      workloadIps: fc.array(fc.oneof(fc.ipV4(), fc.constantFrom('::1', '2001:db8::7', '255.255.255.255', '0.0.0.0')), {
        maxLength: 3,
      }),
      node: fc.constantFrom('', 'node-1', 'node-2'),
      status: fc.constantFrom('Healthy' as const, 'Unhealthy' as const),
      hostname: fc.constantFrom('', 'x.example.com'),
      locality: fc.record({
        region: fc.constantFrom('', 'r'),
        zone: fc.constantFrom('', 'z'),
        subzone: fc.constant(''),
      }),
      capacity: fc.constantFrom(0, 1, 5),
      waypoint: fc.constantFrom(null, byAddress('10.9.9.9')),
      networkGateway: fc.constantFrom(null, byHostname('gw.example.com')),
      authorizationPolicies: fc.constantFrom([], ['default/p']),
      services: fc.dictionary(fc.constantFrom(...KEYS), fc.constantFrom({}, { 80: 8080 }, { 80: 8080, 9090: 0 })),
    }),
    hasOwnName: fc.boolean(),
  })
  .map(({ number, fields: { name, ...fields }, hasOwnName }) => {
    const made = workload(`w-${number}`, fields);
    return hasOwnName ? { ...made, workload: { ...made.workload, name } } : made;
  });

test('every workload reads back as it was written, whatever was there before', () => {
  fc.assert(
    fc.property(fc.array(anyWorkload, { maxLength: 600 }), (updates) => {
      const mesh = createMeshState({ localNode: '' });
      const written = new Map<string, WorkloadUpdate>();
      for (const [index, update] of updates.entries()) {
        const { uid } = update.workload;
        if (index % 7 === 6) mesh.apply({ removedWorkloads: [uid] });
        else mesh.apply({ workloads: [update] });
        if (index % 7 === 6) written.delete(uid);
        else written.set(uid, update);
      }
      assert.deepEqual([...mesh.workloads()].map(({ uid }) => uid).sort(), [...written.keys()].sort());
      for (const [uid, { workload: expected, services }] of written) {
        assert.deepEqual(mesh.workload(uid), { ...expected, services: Object.keys(services).sort() });
        for (const ip of expected.workloadIps) assert.ok(mesh.workloadByAddress('', ip)?.workloadIps.includes(ip));
        for (const [key, ports] of Object.entries(services)) {
          assert.deepEqual(mesh.stagedEndpoints().get(key)?.get(uid)?.port, ports);
        }
      }
    }),
    { numRuns: 30 },
  );
});
