import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import { meshUnderTest } from './support/mesh-under-test.ts';
import { authorizationPolicy, pod, serviceEntry, uidOf } from './support/objects.ts';

/** Takes several slices to be worked out. */
const large = (edit: number) =>
  serviceEntry('large', {
    spec: {
      hosts: Array.from({ length: 50 }, (_, index) => `h${index}.org`),
      endpoints: Array.from({ length: 1000 }, (_, index) => ({
        address: `10.1.${index >> 8}.${index & 255}`,
        weight: 1 + (edit % 2),
      })),
    },
  });

/** Alters an object in every turn until it is told to stop. */
function editWithoutEnd(put: (edit: number) => void): () => number {
  let edits = 0;
  let isOver = false;
  const edit = () => {
    if (isOver) return;
    put(++edits);
    setTimeout(edit, 0);
  };
  edit();
  return () => {
    isOver = true;
    return edits;
  };
}

test('an object that is altered without end keeps nobody from being told of the others', {
  timeout: 60_000,
}, async () => {
  const { mesh, put, address } = meshUnderTest();
  await put(pod('web'), large(0));
  const told = new Promise<void>((resolve) =>
    mesh.resources.onChange(({ addresses }) => {
      if (addresses.has(uidOf('late'))) resolve();
    }),
  );
  const stop = editWithoutEnd((edit) => put(large(edit)));
  await put(pod('late'));
  await told;
  assert.notEqual(address(uidOf('late')), null);
  assert.ok(stop() > 1);
  await mesh.settled();
});

test('a policy that goes while others are worked out stays until nobody lists it any more', async (t) => {
  const { mesh, put, remove, address, policy } = meshUnderTest();
  const selective = authorizationPolicy('p', {
    selector: { matchLabels: { app: 'web' } },
    action: 'DENY',
    rules: [{}],
  });
  await put(pod('web'), selective);
  let told = 0;
  mesh.resources.onChange(() => {
    told++;
    for (const name of address(uidOf('web'))!.authorizationPolicies as string[])
      assert.notEqual(policy(name), null, name);
  });
  // Each look at the clock takes longer than a slice: other things happen after each step.
  let now = 0;
  t.mock.method(performance, 'now', () => (now += 1000));
  const done = put(large(0), pod('late'));
  for (let slice = 0; slice < 100; slice++) await setImmediate();
  const gone = remove('AuthorizationPolicy', 'demo/p');
  await done;
  assert.deepEqual([told, policy('demo/p') !== null], [1, true]);
  await gone;
  assert.equal(policy('demo/p'), null);
});

test('a policy that is deleted and made again and again meanwhile is there for those who list it', async () => {
  const { mesh, put, remove, address, policy } = meshUnderTest();
  const selective = authorizationPolicy('p', {
    selector: { matchLabels: { app: 'web' } },
    action: 'DENY',
    rules: [{}],
  });
  await put(pod('web'), large(0));
  mesh.resources.onChange(() => {
    for (const name of (address(uidOf('web'))?.authorizationPolicies as string[]) ?? [])
      assert.notEqual(policy(name), null, name);
  });
  const stop = editWithoutEnd((edit) => {
    put(large(edit));
    if (edit % 2 === 0) remove('AuthorizationPolicy', 'demo/p');
    else put(selective);
  });
  for (let round = 0; round < 5; round++) await mesh.settled();
  stop();
  await put(selective);
  assert.deepEqual(address(uidOf('web'))?.authorizationPolicies, ['demo/p']);
  assert.notEqual(policy('demo/p'), null);
  await remove('AuthorizationPolicy', 'demo/p');
  assert.deepEqual([address(uidOf('web'))?.authorizationPolicies, policy('demo/p')], [[], null]);
});

test('a large entry comes and goes in slices', async (t) => {
  const { mesh, put, remove } = meshUnderTest();
  await put(pod('web'));
  let now = 0;
  t.mock.method(performance, 'now', () => (now += 1000));
  const halfWay = async (what: string, work: Promise<void>) => {
    for (let slice = 0; slice < 400; slice++) await setImmediate();
    const { addresses } = mesh.resources.counts();
    assert.ok(addresses > 300 && addresses < 1000, `${addresses} resources while it ${what}`);
    await work;
  };
  await halfWay('comes', put(large(0)));
  assert.equal(mesh.resources.counts().addresses, 1051);
  await halfWay('goes', remove('ServiceEntry', 'demo/large'));
  assert.equal(mesh.resources.counts().addresses, 1);
});
