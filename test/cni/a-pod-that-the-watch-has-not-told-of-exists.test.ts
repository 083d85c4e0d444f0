import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { type PodObject, readPod } from '../../src/cni/kube/objects.ts';
import { createProvisionalPods } from '../../src/cni/kube/provisional-pods.ts';
import { KubeError } from '../../src/kube/api.ts';
import { eventually } from './support/eventually.ts';

const object = (uid: string, phase = 'Running') => ({
  metadata: { uid, name: 'web', namespace: 'demo' },
  spec: {},
  status: { phase },
});
const POD: PodObject = readPod(object('u1'))!;

/** Asks every 20 ms; the answer is what the test says, a number is a status. */
function setting(t: TestContext) {
  const state = { answer: object('u1') as unknown, asked: 0 };
  const told: string[] = [];
  const pods = createProvisionalPods({
    askMs: 20,
    onChange: (uid, kind) => void told.push(`${kind} ${uid}`),
    api: {
      async get(path) {
        state.asked++;
        assert.equal(path, '/api/v1/namespaces/demo/pods/web');
        if (typeof state.answer === 'number') throw new KubeError('KUBE_STATUS', 'no', state.answer);
        return state.answer;
      },
    },
  });
  t.after(() => pods.close());
  pods.expect(POD);
  const askedAgain = async () => {
    const before = state.asked;
    await eventually('asked again', () => state.asked > before + 1);
  };
  return { state, told, pods, askedAgain };
}

for (const [what, answer] of [
  ['says that it exists', object('u1')],
  ['fails', 500],
  ['does not answer', 0],
  ['refuses', 403],
] as const) {
  test(`a pod is kept while the API server ${what}`, async (t) => {
    const { state, told, pods, askedAgain } = setting(t);
    state.answer = answer;
    await askedAgain();
    assert.equal(pods.get('u1')?.name, 'web');
    assert.ok(!told.includes('delete u1'));
  });
}

for (const [what, answer] of [
  ['has no such pod', 404],
  ['has another pod of its name', object('u2')],
] as const) {
  test(`a pod is forgotten when the API server ${what}`, async (t) => {
    const { state, told, pods } = setting(t);
    state.answer = answer;
    await eventually('forgotten', () => told.includes('delete u1'));
    assert.equal(pods.get('u1'), null);
  });
}

test('what has become of a pod is told', async (t) => {
  const { state, told, pods } = setting(t);
  state.answer = object('u1', 'Succeeded');
  await eventually('told', () => told.includes('update u1'));
  assert.equal(pods.get('u1')?.terminal, true);
});

test('a pod that the watch has told of is not asked for, and one that is expected again has one timer', async (t) => {
  const { state, told, pods } = setting(t);
  pods.expect(POD);
  pods.settle('u1');
  await delay(80);
  assert.deepEqual([state.asked, told.length, pods.get('u1')], [0, 0, null]);
});
