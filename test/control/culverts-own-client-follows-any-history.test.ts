/** Clients through any history of changes and lost connections: in the end they hold what the control plane holds. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { eventually } from '../cni/support/eventually.ts';
import { createAuthority } from '../native/authority.ts';
import { freePort } from '../support/free-ports.ts';
import { decode, type Json } from '../support/xds-schema.ts';
import {
  hostname,
  namesIn,
  policy,
  service,
  startClient,
  token,
  uid,
  workload,
} from '../xds/support/client-under-test.ts';
import { createTestMesh, type TestMesh } from './support/mesh-resources.ts';
import { ADDRESS, AUTHORIZATION, openPeer, type Peer, startControlPlane } from './support/xds-peer.ts';

const NAMES = ['a', 'b', 'c', 'd'];
const POLICIES = ['p', 'q', 'r'];
const SELECTING = { scope: 'WORKLOAD_SELECTOR' };
const key = (name: string) => `demo/${name}`;

/** A state that the mesh goes to: which policies each workload lists, null where there is none; services by their port. */
const state = fc.record({
  workloads: fc.array(fc.option(fc.uniqueArray(fc.constantFrom(...POLICIES))), {
    minLength: NAMES.length,
    maxLength: NAMES.length,
  }),
  services: fc.array(fc.option(fc.nat(3)), { minLength: 2, maxLength: 2 }),
  dryRun: fc.boolean(),
  isWide: fc.boolean(),
  /** Whether the policy that always holds is removed and made again, all at once. */
  isRemade: fc.boolean(),
});
type State = typeof state extends fc.Arbitrary<infer T> ? T : never;

const step = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('change' as const), state, isSlow: fc.boolean() }) },
  // Changes again before the last ones can have arrived.
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('rush' as const), states: fc.array(state, { minLength: 2 }) }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('away' as const), state }) },
);

/**
 * Takes the mesh to a state in one change. A policy that nobody lists is none; but one holds for one workload in every state,
 * be it that it holds for all, or that the workload lists it.
 */
function goTo(mesh: TestMesh, { workloads, services, dryRun, isWide, isRemade }: State): void {
  const addresses: Record<string, Json | null> = {};
  const policies: Record<string, Json | null> = {};
  const listed = new Set(workloads.flatMap((each) => each ?? []));
  for (const [index, name] of NAMES.entries()) {
    const keys = workloads[index] ?? null;
    addresses[uid(name)] = keys && workload(name, { authorizationPolicies: keys.map(key), node: `node-${index}` });
  }
  for (const [index, port] of services.entries()) {
    const name = NAMES[index]!;
    addresses[`demo/${hostname(name)}`] =
      port === null ? null : service(name, { ports: [{ servicePort: 80 + port, targetPort: 1 }] });
  }
  for (const name of POLICIES) policies[key(name)] = listed.has(name) ? policy(name, { ...SELECTING, dryRun }) : null;
  addresses[uid('ever')] = workload('ever', { authorizationPolicies: isWide ? [] : [key('ever')] });
  policies[key('ever')] = policy('ever', { ...(isWide ? {} : SELECTING), dryRun });
  if (isRemade) mesh.change({ policies: { [key('ever')]: null } });
  mesh.change({ addresses, policies });
}

function namesOf(mesh: TestMesh): { addresses: string[]; policies: string[] } {
  return {
    addresses: [...mesh.addresses()].map(({ name }) => name).sort(),
    policies: [...mesh.policies()].map(({ name }) => name).sort(),
  };
}

test("culvert's own client holds what the control plane holds, whatever happened", async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 8 }), async (steps) => {
      const run = runOf(t);
      const mesh = createTestMesh();
      const authority = createAuthority();
      // Nobody else is given it while no control plane is there.
      const port = await freePort();
      let control = await startControlPlane(run.context, { mesh, authority, port, limits: { debounceMs: 2 } });
      const agent = { token: token('istio-system/agent') };
      const clients = [
        startClient(run.context, control, agent),
        startClient(run.context, control, { ...agent, options: { onDemand: true } }),
      ] as const;
      for (const each of steps) {
        if (each.kind === 'change') goTo(mesh, each.state);
        else if (each.kind === 'rush') for (const state of each.states) goTo(mesh, state);
        else {
          control.server.close();
          goTo(mesh, each.state);
          control = await startControlPlane(run.context, { mesh, authority, port, limits: { debounceMs: 2 } });
        }
        const asked = NAMES.map((name) => uid(name));
        await Promise.race([clients[1].client.demand!(asked), new Promise((resolve) => setTimeout(resolve, 20))]);
      }
      const [everything, onDemand] = clients;
      const { store } = everything;
      await eventually('all is there', () => {
        assert.deepEqual(namesIn(store), namesOf(mesh));
        for (const { name, body } of mesh.addresses()) {
          const { workload, service } = decode('Address', body) as Record<string, Json | null>;
          if (workload) assert.deepEqual(store.workload(name)!.authorizationPolicies, workload.authorizationPolicies);
          if (service)
            assert.ok((service.ports as { servicePort: number }[])[0]!.servicePort in store.service(name)!.ports);
        }
        for (const { name, body } of mesh.policies()) {
          assert.equal(store.policy(name)!.dryRun, decode('Authorization', body).dryRun);
        }
        // Who asks by name has some of it, and nothing that is gone.
        const held = namesIn(onDemand.store);
        assert.deepEqual(held.policies, namesOf(mesh).policies);
        for (const name of held.addresses) {
          const { workload } = decode('Address', mesh.address(name)!.body) as { workload: Json };
          assert.deepEqual(onDemand.store.workload(name)!.authorizationPolicies, workload.authorizationPolicies);
        }
        return true;
      });
      assert.doesNotMatch(everything.lines.join(''), /rejected/);
      run.end();
    }),
    { numRuns: 12, endOnFailure: true },
  );
});

/** What a proxy holds that does just what it is told. */
class Replica {
  readonly addresses = new Map<string, { readonly version: string; readonly lists: readonly string[] }>();
  failure: unknown = null;
  /** By name, whether it holds for all. */
  readonly policies = new Map<string, boolean>();

  /**
   * Takes in the next response; it is a failure if a workload lists a policy that is not known after that, or if one does not
   * hold that always does. Returns what acknowledges it.
   */
  async take(peer: Peer): Promise<() => void> {
    const { typeUrl, nonce, resources, removed } = await peer.hold();
    if (typeUrl === AUTHORIZATION) {
      for (const [name, { value }] of resources) this.policies.set(name, decode('Authorization', value).scope !== 2);
      for (const name of removed) this.policies.delete(name);
    } else {
      for (const [name, { version, value }] of resources) {
        const { workload } = decode('Address', value) as { workload: { authorizationPolicies: string[] } | null };
        this.addresses.set(name, { version, lists: workload?.authorizationPolicies ?? [] });
      }
      for (const name of removed) this.addresses.delete(name);
    }
    for (const [name, { lists }] of this.addresses) {
      for (const listed of lists) {
        if (!this.policies.has(listed)) this.failure ??= `${name} lists ${listed}, which is not known`;
      }
    }
    const ever = this.addresses.get(uid('ever'));
    if (ever !== undefined && !this.policies.get(key('ever')) && !ever.lists.includes(key('ever'))) {
      this.failure ??= 'a policy holds for nobody';
    }
    return () => peer.ask({ typeUrl, nonce });
  }
}

test('no workload ever lists a policy that a proxy was not sent, whatever happened', async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 10 }), async (steps) => {
      const run = runOf(t);
      const mesh = createTestMesh();
      const control = await startControlPlane(run.context, {
        mesh,
        limits: { debounceMs: 1, policiesExpectedMs: 20_000 },
      });
      const replica = new Replica();
      let peer = connect();

      function connect(): Peer {
        const peer = openPeer(run.context, control);
        const versions = Object.fromEntries([...replica.addresses].map(([name, { version }]) => [name, version]));
        peer.ask({ typeUrl: ADDRESS, versions });
        peer.ask({
          typeUrl: AUTHORIZATION,
          versions: Object.fromEntries([...replica.policies.keys()].map((name) => [name, ''])),
        });
        return peer;
      }
      /** What has been taken in and not been acknowledged. */
      let late: (() => void)[] = [];
      function acknowledge(): void {
        for (const each of late.splice(0)) each();
      }
      async function catchUp(): Promise<void> {
        acknowledge();
        await eventually('it is up to date', async () => {
          while (peer.waiting.length > 0) (await replica.take(peer))();
          assert.deepEqual([...replica.addresses.keys()].sort(), namesOf(mesh).addresses);
          assert.deepEqual([...replica.policies.keys()].sort(), namesOf(mesh).policies);
          for (const { name, version } of mesh.addresses()) {
            assert.equal(replica.addresses.get(name)!.version, version);
          }
          return true;
        });
        assert.equal(replica.failure, null);
      }

      (await replica.take(peer))();
      (await replica.take(peer))();
      for (const each of steps) {
        if (each.kind === 'change') {
          goTo(mesh, each.state);
          await new Promise((resolve) => setTimeout(resolve, 3));
          // Some of it is taken now, and acknowledged now or later; the rest is taken later.
          if (!each.isSlow) acknowledge();
          if (peer.waiting.length > 0) late.push(await replica.take(peer));
          if (!each.isSlow) acknowledge();
        } else if (each.kind === 'rush') {
          for (const state of each.states) {
            goTo(mesh, state);
            await new Promise((resolve) => setImmediate(resolve));
          }
          await catchUp();
        } else {
          peer.call.cancel();
          late = [];
          goTo(mesh, each.state);
          peer = connect();
        }
      }
      await catchUp();
      run.end();
    }),
    { numRuns: 25, endOnFailure: true },
  );
});

/** What one run of a property starts ends with it, not only with the test. */
function runOf(t: TestContext): { readonly context: TestContext; end(): void } {
  const ends: (() => void)[] = [];
  const end = () => {
    for (const each of ends.splice(0).reverse()) each();
  };
  t.after(end);
  return { context: { after: (each: () => void) => void ends.push(each) } as TestContext, end };
}
