/** Whatever is pushed, removed, rejected and interrupted: in the end the store says what the control plane says. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createMeshState } from '../../src/state/store.ts';
import type { KnownResources } from '../../src/xds/known.ts';
import { ADDRESS, AUTHORIZATION } from '../support/istiod.ts';
import { encode, type Json } from '../support/xds-schema.ts';
import { hostname, namesIn, policy, service, uid, workload } from './support/client-under-test.ts';
import { intakeOf, takeIn } from './support/taken-in.ts';

const names = ['a', 'b', 'c', 'd', 'e'];

const resource = fc.oneof(
  fc.record({
    type: fc.constant(ADDRESS),
    name: fc.constantFrom(...names.map(uid)),
    content: fc.nat(3),
    bad: fc.boolean(),
  }),
  fc.record({
    type: fc.constant(ADDRESS),
    name: fc.constantFrom(...names.map((name) => `demo/${hostname(name)}`)),
    content: fc.nat(3),
    bad: fc.constant(false),
  }),
  fc.record({
    type: fc.constant(AUTHORIZATION),
    name: fc.constantFrom(...names.map((name) => `demo/${name}`)),
    content: fc.nat(3),
    bad: fc.constant(false),
  }),
);

const step = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('put' as const), ...{ resource } }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('remove' as const), ...{ resource } }) },
  // Nothing of what happens while the stream is away is told.
  { weight: 1, arbitrary: fc.constant({ kind: 'disconnect' as const }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('connect' as const), reported: fc.nat(8) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('cut' as const), bytes: fc.nat(60) }) },
);

interface Held {
  readonly bytes: Buffer;
  readonly content: number;
  readonly bad: boolean;
}

function encoded(type: string, name: string, content: number, bad: boolean): Buffer {
  const short = name.slice(name.lastIndexOf('/') + 1).split('.')[0]!;
  if (type === AUTHORIZATION) return encode('Authorization', policy(short, { dryRun: content > 1 }));
  const isWorkload = name.includes('//Pod/');
  const more = bad ? { tunnelProtocol: 2 } : { canonicalName: `v${content}` };
  return encode(
    'Address',
    isWorkload ? workload(short, more) : service(short, { ports: [{ servicePort: 80 + content, targetPort: 1 }] }),
  );
}

function response(type: string, sent: Iterable<[string, Held]>, removedResources: readonly string[]): Buffer {
  const resources: Json[] = [...sent].map(([name, { bytes, content }]) => ({
    name,
    version: type === ADDRESS ? `v${content}` : '',
    resource: { typeUrl: type, value: bytes },
  }));
  return encode('DeltaDiscoveryResponse', { typeUrl: type, nonce: 'n', resources, removedResources });
}

test('any history of pushes, removals, bad resources, lost streams and partial reports', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), fc.integer({ min: 1, max: 200 }), (steps, pieceSize) => {
      const server = new Map([ADDRESS, AUTHORIZATION].map((type) => [type, new Map<string, Held>()]));
      /** Last good version of each name that was sent: what a bad one leaves in force. */
      const model = new Map<string, number>();
      const store = createMeshState({ localNode: '' });
      const intake = intakeOf(store);
      let connected = false;

      const deliver = (type: string, sent: readonly [string, Held][], removed: readonly string[]) => {
        const taken = takeIn(intake, response(type, sent, removed), pieceSize);
        assert.deepEqual(
          [...taken.rejected.keys()],
          sent.filter(([, { bad }]) => bad).map(([name]) => name),
        );
        for (const [name, { bad, content }] of sent) if (!bad) model.set(name, content);
        for (const name of removed) model.delete(name);
      };
      /** A new stream: reports some versions, gets what differs from them. */
      const connect = (count: number) => {
        connected = true;
        for (const [type, all] of server) {
          const known: KnownResources = intake.known(type)!;
          let left = count;
          const reported = new Map([...known.report(() => left-- > 0)].filter((entry) => entry !== null));
          const changed = [...all].filter(
            ([name, { content }]) => type === AUTHORIZATION || reported.get(name) !== `v${content}`,
          );
          deliver(
            type,
            changed,
            [...reported.keys()].filter((name) => !all.has(name)),
          );
          // What was not reported and did not come is gone, though nobody says so.
          for (const name of [...model.keys()]) {
            const isOfType = name.startsWith('demo/') && !name.includes('.') ? AUTHORIZATION : ADDRESS;
            if (isOfType === type && !all.has(name)) model.delete(name);
          }
        }
      };

      for (const each of steps) {
        if (each.kind === 'put') {
          const { type, name, content, bad } = each.resource;
          const held = { bytes: encoded(type, name, content, bad), content, bad };
          server.get(type)!.set(name, held);
          if (connected) deliver(type, [[name, held]], []);
        } else if (each.kind === 'remove') {
          const { type, name } = each.resource;
          server.get(type)!.delete(name);
          if (connected) deliver(type, [], [name]);
        } else if (each.kind === 'disconnect') connected = false;
        else if (each.kind === 'connect') connect(each.reported);
        else {
          // The stream ends within a response: what came of it may be in force already, the rest comes again.
          connected = false;
          const partial = intake.begin();
          const all = [...server.get(ADDRESS)!].filter(([, { bad }]) => !bad);
          for (const _ of partial.push(response(ADDRESS, all, []).subarray(0, each.bytes)));
          intake.flush();
        }
      }
      connect(3);
      const { addresses, policies } = namesIn(store);
      assert.deepEqual([...addresses, ...policies].sort(), [...model.keys()].sort());
      for (const [name, content] of model) {
        if (name.includes('//Pod/')) assert.equal(store.workload(name)!.canonicalName, `v${content}`);
        else if (name.includes('.')) assert.deepEqual(store.service(name)!.ports, { [80 + content]: 1 });
        else assert.equal(store.policy(name)!.dryRun, content > 1);
      }
    }),
    { numRuns: 300 },
  );
});
