import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { PodObject } from '../../src/cni/kube/objects.ts';
import { createEnroller, type Desired } from '../../src/cni/pods/enroller.ts';
import { createWorkQueue } from '../../src/cni/pods/work-queue.ts';
import { defaultPodRules } from '../../src/cni/rules/pod-rules.ts';
import type { NetnsHandle } from '../../src/netns/handle.ts';
import { eventually } from './support/eventually.ts';

const UID = 'u1';

/** An enroller whose collaborators write down what they are asked, and do what the test says. */
function setting(t: TestContext) {
  const steps: string[] = [];
  const fail = new Map<string, Error>();
  const open = new Set<string>();
  let handles = 0;
  const state = {
    desired: { kind: 'gone' } as Desired,
    found: null as NetnsHandle | null,
    /** Runs within the step of that name. */
    during: new Map<string, () => Promise<void> | void>(),
  };
  const step = async (name: string) => {
    steps.push(name);
    await state.during.get(name.split(' ')[0]!)?.();
    const error = fail.get(name.split(' ')[0]!);
    if (error !== undefined) throw error;
  };
  const netns = (key: string): NetnsHandle => {
    const id = `${key}#${++handles}`;
    open.add(id);
    return {
      fd: handles,
      key,
      duplicate() {
        assert.ok(open.has(id), 'a closed handle was duplicated');
        return netns(key);
      },
      close: () => open.delete(id),
    };
  };
  const enroller = createEnroller({
    desired: () => state.desired,
    rules: {
      name: 'nftables',
      programs: null,
      apply: (fd) => step(`apply ${fd > 0}`),
      removeForeign: () => step('foreign'),
      remove: () => step('remove'),
    },
    zds: {
      async add(_, handle) {
        handle?.close();
        await step(`add ${handle?.key}`);
      },
      seed: (_, handle) => handle?.close(),
      remove: () => step('del'),
    },
    host: { seed() {}, set: (_, ips) => step(`host ${ips.join()}`), remove: () => step('unhost') },
    discover: async () => state.found?.duplicate() ?? null,
    annotate: (_, value) => step(`annotate ${value}`),
    log: { info() {}, warn() {}, debug() {} },
    rescanMs: 20,
  });
  t.after(() => enroller.close());
  const stateOf = () => [...enroller.states()].find(({ pod }) => pod.uid === UID)?.state;
  return { steps, fail, open, state, netns, enroller, stateOf };
}

function podObject(changes: Partial<PodObject> = {}): PodObject {
  return {
    ...{ uid: UID, namespace: 'demo', name: 'web', serviceAccount: 'default', labels: {}, annotations: {} },
    ...{ hostNetwork: false, terminal: false, staticUid: null, ips: ['10.0.0.1'] },
    ...changes,
  };
}

const enrolled = (changes: Partial<PodObject> = {}): Desired => ({
  kind: 'enrolled',
  pod: podObject(changes),
  rules: defaultPodRules,
});
const MARKED = { annotations: { 'ambient.istio.io/redirection': 'enabled' } };

test('a running pod is served before it is captured, and freed before it is no longer served', async (t) => {
  const { steps, state, enroller, netns, open, stateOf } = setting(t);
  state.found = netns('a');
  state.desired = enrolled();
  enroller.changed(UID);
  await eventually('enabled', () => stateOf() === 'enabled');
  assert.deepEqual(steps, ['host 10.0.0.1', 'add a', 'apply true', 'annotate enabled']);
  state.desired = enrolled(MARKED);
  enroller.changed(UID);
  await delay(20);
  assert.equal(steps.length, 4, 'nothing is left to do');
  state.desired = { kind: 'out', pod: podObject(MARKED) };
  enroller.changed(UID);
  await eventually('out', () => stateOf() === undefined);
  assert.deepEqual(steps.slice(4), ['remove', 'unhost', 'del', 'annotate null']);
  assert.equal(open.size, 1, 'all handles but that of the test are closed');
});

test('an entry stays until the last step has succeeded', async (t) => {
  const { steps, state, fail, enroller, netns, open, stateOf } = setting(t);
  state.found = netns('a');
  state.desired = enrolled();
  enroller.changed(UID);
  await eventually('enabled', () => stateOf() === 'enabled');
  state.desired = { kind: 'out', pod: podObject(MARKED) };
  for (const step of ['remove', 'unhost', 'del', 'annotate']) {
    fail.clear();
    fail.set(step, new Error('not now'));
    const before = steps.length;
    enroller.changed(UID);
    await eventually(`${step} was tried`, () => steps.slice(before).some((done) => done.startsWith(step)));
    await delay(5);
    assert.equal(stateOf(), 'removing');
  }
  fail.clear();
  await eventually('out', () => stateOf() === undefined);
  assert.equal(open.size, 1);
});

test('a pod that is wanted again while it is being taken out gets everything anew', async (t) => {
  const { steps, state, fail, enroller, netns, stateOf } = setting(t);
  state.found = netns('a');
  state.desired = enrolled();
  enroller.changed(UID);
  await eventually('enabled', () => stateOf() === 'enabled');
  fail.set('annotate', new Error('not now'));
  state.desired = { kind: 'out', pod: podObject(MARKED) };
  enroller.changed(UID);
  await eventually('half out', () => steps.includes('annotate null'));
  fail.clear();
  steps.length = 0;
  state.desired = enrolled(MARKED);
  enroller.changed(UID);
  await eventually('enabled', () => stateOf() === 'enabled');
  assert.deepEqual(steps, ['host 10.0.0.1', 'add a', 'apply true']);
});

test('a pod that starts waits for every step, and hears why it cannot', async (t) => {
  const { state, fail, enroller, netns, stateOf } = setting(t);
  state.desired = enrolled({ ips: [] });
  fail.set('apply', new Error('no table'));
  const sandbox = () => ({ containerId: 'c', netns: netns('a'), ips: ['10.0.0.2'] });
  await assert.rejects(enroller.admit(podObject({ ips: [] }), sandbox()), /no table/);
  fail.clear();
  await enroller.admit(podObject({ ips: [] }), sandbox());
  await eventually('enabled', () => stateOf() === 'enabled');
});

test('a pod of which nothing is known yet does not start', async (t) => {
  const { steps, state, enroller, netns } = setting(t);
  state.desired = { kind: 'unknown' };
  await assert.rejects(enroller.admit(podObject(), { containerId: 'c', netns: netns('a'), ips: [] }), {
    code: 'POD_UNDECIDED',
  });
  assert.deepEqual(steps, []);
});

test('a new sandbox that is told in the middle of a step is enrolled, too, and each handle lives as long as it is used', async (t) => {
  const { steps, state, enroller, netns, open, stateOf } = setting(t);
  state.desired = enrolled();
  let second: Promise<void> | null = null;
  state.during.set('apply', () => {
    second ??= enroller.admit(podObject(), { containerId: 'c2', netns: netns('b'), ips: ['10.0.0.1'] });
  });
  await enroller.admit(podObject(), { containerId: 'c1', netns: netns('a'), ips: ['10.0.0.1'] });
  await second;
  assert.deepEqual(
    steps.filter((step) => step.startsWith('add')),
    ['add a', 'add b'],
  );
  enroller.release((containerId) => containerId === 'c1');
  await eventually('enabled', () => stateOf() === 'enabled');
  assert.ok(!steps.includes('del'), 'the end of the first sandbox is not that of the second');
  enroller.release((containerId) => containerId === 'c2');
  await eventually('let go', () => steps.includes('del'));
  assert.equal(open.size, 0);
});

test('a sandbox that ends while it is enrolled leaves nothing that the next one is taken to have', async (t) => {
  const { steps, state, enroller, netns, open, stateOf } = setting(t);
  state.desired = enrolled();
  state.found = netns('a');
  state.during.set('apply', () => enroller.release(() => true));
  const sandbox = (containerId: string) => ({ containerId, netns: netns('a'), ips: ['10.0.0.1'] });
  await enroller.admit(podObject(), sandbox('c1'));
  await eventually('let go', () => steps.includes('unhost') && stateOf() === 'absent');
  assert.ok(!steps.includes('annotate enabled'));
  assert.equal(open.size, 1);
  state.during.clear();
  steps.length = 0;
  // The kernel gives the number of the old namespace to the new one.
  await enroller.admit(podObject(), sandbox('c2'));
  assert.deepEqual(steps.slice(0, 3), ['host 10.0.0.1', 'add a', 'apply true']);
});

test('a sandbox that is made while the one before is let go of is let go of itself', async (t) => {
  const { steps, state, enroller, netns } = setting(t);
  state.desired = enrolled();
  await enroller.admit(podObject(), { containerId: 'c1', netns: netns('a'), ips: ['10.0.0.1'] });
  let second: Promise<void> | null = null;
  state.during.set('unhost', () => {
    second ??= enroller.admit(podObject(), { containerId: 'c2', netns: netns('b'), ips: ['10.0.0.1'] });
  });
  enroller.release((containerId) => containerId === 'c1');
  await eventually('told', () => second !== null);
  await second;
  steps.length = 0;
  enroller.release((containerId) => containerId === 'c2');
  await eventually('let go', () => steps.includes('del'));
});

test('a runtime that tells no addresses leaves them to the API', async (t) => {
  const { steps, state, enroller, netns } = setting(t);
  state.desired = enrolled({ ips: [] });
  await enroller.admit(podObject({ ips: [] }), { containerId: 'c', netns: netns('a'), ips: [] });
  state.found = netns('a');
  state.desired = enrolled(MARKED);
  enroller.changed(UID);
  await eventually('the node knows', () => steps.includes('host 10.0.0.1'));
});

test('a new sandbox that only the API tells of is found by its addresses', async (t) => {
  const { steps, state, enroller, netns, stateOf } = setting(t);
  state.desired = enrolled(MARKED);
  await enroller.admit(podObject(), { containerId: 'c', netns: netns('a'), ips: ['10.0.0.1'] });
  enroller.release(() => true);
  await eventually('let go', () => steps.includes('unhost'));
  state.found = netns('b');
  enroller.changed(UID);
  await delay(20);
  assert.ok(!steps.includes('add b'), 'the old addresses are those of the sandbox that has ended');
  state.desired = enrolled({ ...MARKED, ips: ['10.0.0.2'] });
  enroller.changed(UID);
  await eventually('enabled', () => stateOf() === 'enabled');
  assert.deepEqual(steps.slice(-3), ['host 10.0.0.2', 'add b', 'apply true']);
});

test('a pod whose namespace is not found keeps its listener until its rules are gone', async (t) => {
  const { steps, state, enroller, netns, open, stateOf } = setting(t);
  state.desired = { kind: 'out', pod: podObject(MARKED) };
  enroller.resume(podObject(MARKED), null, false);
  await eventually('tried', () => stateOf() === 'removing');
  await delay(50);
  assert.deepEqual(steps, []);
  assert.equal(stateOf(), 'removing');
  state.found = netns('a');
  await eventually('out', () => stateOf() === undefined);
  assert.deepEqual(steps, ['remove', 'foreign', 'unhost', 'del', 'annotate null']);
  assert.equal(open.size, 1);
});

test('when all leave, what fails is tried again for a while, and what remains is told', async (t) => {
  for (const lasts of [false, true]) {
    const { state, fail, enroller, netns, stateOf } = setting(t);
    state.found = netns('a');
    state.desired = enrolled();
    enroller.changed(UID);
    await eventually('enabled', () => stateOf() === 'enabled');
    let [isLeaving, before, tried] = [false, 0, 0];
    state.during.set('remove', () => {
      if (!isLeaving) before++;
      else if (++tried > 1 && !lasts) fail.clear();
    });
    fail.set('remove', new Error('no rules'));
    // What has failed often is not tried again by itself for long.
    state.desired = { kind: 'out', pod: podObject(MARKED) };
    for (let times = 1; times <= 9; times++) {
      enroller.changed(UID);
      await eventually('tried', () => before >= times);
    }
    isLeaving = true;
    assert.deepEqual(await enroller.leaveAll(lasts ? 300 : undefined), lasts ? ['demo/web'] : []);
    assert.ok(lasts || tried > 1, 'it was not tried again');
  }
});

test('a namespace that is not found is looked for again', async (t) => {
  const { state, enroller, netns, stateOf } = setting(t);
  state.desired = enrolled(MARKED);
  enroller.resume(podObject(MARKED), null, false);
  await eventually('lost', () => stateOf() === 'lost');
  state.found = netns('a');
  await eventually('found', () => stateOf() === 'enabled');
});

test('the rules of an earlier node agent go after ours have come', async (t) => {
  const { steps, state, enroller, netns, stateOf } = setting(t);
  state.desired = enrolled(MARKED);
  enroller.resume(podObject(MARKED), netns('a'), false);
  await eventually('rules', () => steps.includes('foreign'));
  await eventually('enabled', () => stateOf() === 'enabled');
  assert.deepEqual(steps, ['host 10.0.0.1', 'apply true', 'foreign']);
});

test('work of one key never runs twice at once, and what is asked for meanwhile is done afterwards', async (t) => {
  const running = new Map<string, number>();
  const runs: string[] = [];
  let widest = 0;
  const queue = createWorkQueue({
    concurrency: 3,
    onError: () => assert.fail('nothing fails here'),
    async work(key) {
      running.set(key, (running.get(key) ?? 0) + 1);
      assert.equal(running.get(key), 1);
      widest = Math.max(
        widest,
        [...running.values()].reduce((sum, count) => sum + count, 0),
      );
      await delay(Math.random() * 4);
      running.set(key, 0);
      runs.push(key);
    },
  });
  t.after(() => queue.close());
  for (let round = 0; round < 60; round++) {
    queue.add(`k${round % 7}`);
    if (round % 5 === 0) await delay(1);
  }
  await queue.idle();
  assert.equal(new Set(runs).size, 7);
  assert.ok(widest > 1 && widest <= 3, String(widest));
});
