import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { WorkloadUpdate } from '../../src/state/mesh-state.ts';
import { ProfileIndex } from '../../src/state/workload-profile.ts';
import { byAddress, byHostname, type WorkloadFields, workload } from './mesh-builder.ts';

/** Workloads of one deployment: what they differ in is not in the key that tells deployments apart. */
const fields: fc.Arbitrary<WorkloadFields> = fc.record({
  protocol: fc.constantFrom('TCP', 'HBONE'),
  canonicalName: fc.constantFrom('', 'a'),
  locality: fc.record({ zone: fc.constantFrom('', 'z'), subzone: fc.constantFrom('', 'z') }),
  capacity: fc.integer({ min: 1, max: 40 }),
  nativeTunnel: fc.boolean(),
  waypoint: fc.constantFrom(null, byAddress('10.9.9.9'), byAddress('10.9.9.9', 15009), byHostname('10.9.9.9', '')),
  networkGateway: fc.constantFrom(null, byHostname('gw.example.com'), byHostname('gw.example.com', 'other')),
  applicationTunnel: fc.constantFrom(
    null,
    { protocol: 'PROXY' as const, port: null },
    { protocol: 'PROXY' as const, port: 8080 },
    { protocol: 'NONE' as const, port: null },
  ),
  authorizationPolicies: fc.constantFrom([], ['default/p'], ['default/p', 'default/q'], ['default/q', 'default/p']),
  services: fc.constantFrom(
    {},
    { 'default/a': { 80: 8080 } },
    { 'default/a': { 80: 8080, 81: 0 } },
    { 'default/b': { 81: 0, 80: 8080 }, 'default/a': {} },
    { 'default/a': {}, 'default/b': { 80: 8080, 81: 0 } },
    { 'default/a': { 80: 8080, 81: 0 }, 'default/b': {} },
  ),
});

/** Few kinds that come and go, so that some are equal and every number is freed and used again. */
const history = fc
  .uniqueArray(fields, { minLength: 1, maxLength: 40, size: 'max', selector: (one) => JSON.stringify(one) })
  .chain((kinds) =>
    fc.record({
      kinds: fc.constant(kinds),
      steps: fc.array(fc.record({ kind: fc.nat(kinds.length - 1), isRelease: fc.boolean() }), {
        maxLength: 300,
        size: 'max',
      }),
    }),
  );

/** Each of these makes another profile. */
const CHANGES: WorkloadFields[] = [
  {},
  { trustDomain: 'x' },
  { network: 'x' },
  { protocol: 'TCP' },
  { networkMode: 'HostNetwork' },
  { workloadType: 'pod' },
  { canonicalName: 'x' },
  { clusterId: 'x' },
  { locality: { region: 'x' } },
  { locality: { zone: 'x' } },
  { locality: { subzone: 'x' } },
  { capacity: 2 },
  { nativeTunnel: true },
  { waypoint: byAddress('10.0.0.1') },
  { networkGateway: byAddress('10.0.0.1') },
  { networkGateway: byAddress('10.0.0.1', 15008, 'x') },
  { networkGateway: byHostname('10.0.0.1', '') },
  { applicationTunnel: { protocol: 'PROXY', port: null } },
  { applicationTunnel: { protocol: 'PROXY', port: 1 } },
  { authorizationPolicies: ['x'] },
  { services: { 'x/x': {} } },
  { services: { 'x/x': { 1: 2 } } },
  { services: { 'x/x': {}, 'x/y': {} } },
  { workloadName: 'w/x', serviceAccount: 'y' },
  { workloadName: 'w', serviceAccount: 'x/y' },
];

test('equal profiles have one number, others another, and none is left when nobody has it', () => {
  let most = 0;
  fc.assert(
    fc.property(history, ({ kinds, steps }) => {
      const index = new ProfileIndex();
      const held = new Map<string, { id: number; uses: number; update: WorkloadUpdate }>();
      const release = (key: string) => {
        const one = held.get(key);
        if (one === undefined) return;
        index.release(one.id);
        if (--one.uses === 0) held.delete(key);
      };
      for (const { kind, isRelease } of steps) {
        const update = workload('w', kinds[kind]!);
        const key = plain(update);
        if (isRelease) release(key);
        else {
          const id = index.acquire(update);
          const one = held.get(key) ?? { id, uses: 0, update };
          assert.equal(id, one.id);
          one.uses++;
          held.set(key, one);
        }
        assert.equal(index.size, held.size);
        most = Math.max(most, held.size);
        assert.equal(new Set([...held.values()].map(({ id }) => id)).size, held.size);
      }
      for (const { id, update } of held.values()) assertSays(index, id, update);
      for (const [key, { uses }] of [...held]) for (let use = 0; use < uses; use++) release(key);
      assert.equal(index.size, 0);
    }),
    { numRuns: 200 },
  );
  assert.ok(most > 16, `at most ${most} at once`);
});

test('of a few, each thing a profile says makes it another one', () => {
  for (const one of CHANGES) {
    for (const other of CHANGES) {
      const index = new ProfileIndex();
      const isSame = index.acquire(workload('w', one)) === index.acquire(workload('w', other));
      assert.equal(isSame, one === other, JSON.stringify([one, other]));
    }
  }
});

test('each thing a profile says makes it another one, however many there are', () => {
  const index = new ProfileIndex();
  const fill = () => Array.from({ length: 20 }, (_, at) => index.acquire(workload('w', { capacity: at + 100 })));
  const many = fill();
  assert.deepEqual(fill(), many);
  const ids = CHANGES.map((change) => index.acquire(workload('w', change)));
  assert.equal(new Set([...ids, ...many]).size, CHANGES.length + many.length);
  for (const [at, change] of CHANGES.entries()) {
    assert.equal(index.acquire(workload('w', change)), ids[at]);
    assertSays(index, ids[at]!, workload('w', change));
  }
});

function assertSays(index: ProfileIndex, id: number, { workload, services }: WorkloadUpdate): void {
  const { services: keys, ports, ...profile } = index.at(id);
  const { uid, name, node, workloadIps, status, ...expected } = workload;
  assert.deepEqual(profile, expected);
  assert.deepEqual(Object.fromEntries(keys.map((key, at) => [key, ports[at]])), services);
}

/** Equal for equal profiles, whatever the order of their services. */
function plain({ workload, services }: WorkloadUpdate): string {
  return JSON.stringify([workload, Object.entries(services).sort()]);
}
