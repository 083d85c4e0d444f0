import assert from 'node:assert/strict';
import { test } from 'node:test';
import { wantsNode, whyEnding } from '../../src/cni/install/shutdown.ts';
import { type KubeApi, KubeError } from '../../src/kube/api.ts';

const NODE = { metadata: { name: 'n1', labels: { zone: 'a', size: '8' } } };
const affinity = (...terms: unknown[]) => ({
  affinity: { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: terms } } },
});
const expression = (key: string, operator: string, ...values: string[]) => ({
  matchExpressions: [{ key, operator, values }],
});

for (const [what, template, wanted] of [
  ['asks nothing', {}, true],
  ['selects its label', { nodeSelector: { zone: 'a' } }, true],
  ['selects another label', { nodeSelector: { zone: 'b' } }, false],
  ['wants one of its zones', affinity(expression('zone', 'In', 'a', 'b')), true],
  ['wants another zone', affinity(expression('zone', 'In', 'b')), false],
  ['refuses its zone', affinity(expression('zone', 'NotIn', 'a')), false],
  ['refuses a label that it lacks', affinity(expression('spot', 'NotIn', 'true')), true],
  ['wants a label that it lacks', affinity(expression('spot', 'Exists')), false],
  ['wants a label to be absent', affinity(expression('spot', 'DoesNotExist')), true],
  ['wants more than it has', affinity(expression('size', 'Gt', '8')), false],
  ['wants less than a bound', affinity(expression('size', 'Lt', '9')), true],
  ['offers an alternative', affinity(expression('zone', 'In', 'b'), expression('size', 'In', '8')), true],
  ['has an empty term', affinity({}), false],
  ['names it', affinity({ matchFields: [{ key: 'metadata.name', operator: 'In', values: ['n1'] }] }), true],
  ['names another', affinity({ matchFields: [{ key: 'metadata.name', operator: 'In', values: ['n2'] }] }), false],
  ['asks what nobody knows', affinity(expression('zone', 'Near', 'a')), true],
] as const) {
  test(`a DaemonSet that ${what} ${wanted ? 'wants' : 'does not want'} the node`, () => {
    assert.equal(wantsNode(template, NODE), wanted);
  });
}

const ask = async (answers: Record<string, unknown>) => {
  const api: Pick<KubeApi, 'get'> = {
    async get(path) {
      const answer = Object.entries(answers).find(([part]) => path.includes(part))?.[1];
      if (typeof answer === 'number') throw new KubeError('KUBE_STATUS', `status ${answer}`, answer);
      if (answer === undefined) throw new KubeError('KUBE_UNREACHABLE', 'nobody answers');
      return answer;
    },
  };
  const place = { namespace: 'culvert-system', daemonSet: 'culvert-cni', node: 'n1' };
  return (await whyEnding(api, place, 0)).kind;
};
for (const status of [0, 429, 500, 503]) {
  test(`an API server that answers ${status || 'nothing'} at first is asked again`, async () => {
    let asked = 0;
    const api: Pick<KubeApi, 'get'> = {
      async get() {
        throw new KubeError('KUBE_STATUS', 'no', ++asked === 1 ? status : 404);
      },
    };
    const place = { namespace: 'culvert-system', daemonSet: 'culvert-cni', node: 'n1' };
    assert.equal((await whyEnding(api, place)).kind, 'uninstalled');
    assert.equal(asked, 2);
  });
}

test('an API server that has not answered in all the time there is, is asked once more', async () => {
  let asked = 0;
  const api: Pick<KubeApi, 'get'> = {
    async get() {
      throw ++asked === 1 ? new KubeError('KUBE_STALLED', 'no answer') : new KubeError('KUBE_STATUS', 'no', 404);
    },
  };
  const place = { namespace: 'culvert-system', daemonSet: 'culvert-cni', node: 'n1' };
  assert.equal((await whyEnding(api, place, 0)).kind, 'uninstalled');
});

const daemonSet = (template: object, metadata: object = {}) => ({ metadata, spec: { template: { spec: template } } });

for (const [what, answers, kind] of [
  ['it exists', { daemonsets: daemonSet({}) }, 'replaced'],
  ['it wants this node', { daemonsets: daemonSet({ nodeSelector: { zone: 'a' } }), nodes: NODE }, 'replaced'],
  ['it wants other nodes', { daemonsets: daemonSet({ nodeSelector: { zone: 'b' } }), nodes: NODE }, 'uninstalled'],
  ['it is being deleted', { daemonsets: daemonSet({}, { deletionTimestamp: 'now' }) }, 'uninstalled'],
  ['it is gone', { daemonsets: 404 }, 'uninstalled'],
  ['the token is gone', { daemonsets: 401 }, 'uninstalled'],
  ['the rights are gone', { daemonsets: 403 }, 'uninstalled'],
  ['the API server fails', { daemonsets: 500 }, 'replaced'],
  ['the API server does not answer', {}, 'replaced'],
] as const) {
  test(`when ${what}, the node agent was ${kind}`, async () => {
    assert.equal(await ask(answers), kind);
  });
}
