import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Eligibility, eligibilityOf } from '../../src/cni/enrolment/eligibility.ts';
import { podRulesOf } from '../../src/cni/enrolment/overrides.ts';
import { isSelected, parseSelectors, selectsNamespace } from '../../src/cni/enrolment/selectors.ts';
import { type PodObject, readNamespace, readPod } from '../../src/cni/kube/objects.ts';
import { defaultPodRules } from '../../src/cni/rules/pod-rules.ts';
import { nodeAgentSettings } from '../../src/config/settings/node-agent.ts';
import { matchesLabels } from '../../src/kube/label-selector.ts';

const KEY = 'istio.io/dataplane-mode';
const defaults = await parseSelectors(nodeAgentSettings.enablementSelector.default);

for (const [pod, namespace, selected] of [
  [{}, {}, false],
  [{}, { [KEY]: 'ambient' }, true],
  [{ [KEY]: 'none' }, { [KEY]: 'ambient' }, false],
  [{ [KEY]: 'ambient' }, {}, true],
  [{ [KEY]: 'ambient' }, { [KEY]: 'none' }, true],
  [{ [KEY]: 'other' }, { [KEY]: 'ambient' }, true],
] as const) {
  test(`by default a pod ${JSON.stringify(pod)} in ${JSON.stringify(namespace)} is ${selected ? 'in' : 'out'}`, () => {
    assert.equal(isSelected(defaults, pod, namespace), selected);
  });
}

test('only an entry that asks something of the namespace enrols it', async () => {
  assert.ok(selectsNamespace(defaults, { [KEY]: 'ambient' }));
  assert.ok(!selectsNamespace(defaults, {}));
});

test('an absent label is in no set, and so satisfies NotIn and DoesNotExist only', () => {
  const requirement = (operator: 'In' | 'NotIn' | 'Exists' | 'DoesNotExist') => [
    { key: 'a', operator, values: operator.endsWith('In') ? ['x'] : [] },
  ];
  assert.deepEqual(
    (['In', 'NotIn', 'Exists', 'DoesNotExist'] as const).map((operator) => matchesLabels(requirement(operator), {})),
    [false, true, false, true],
  );
  // A label must not be found on the prototype.
  assert.ok(!matchesLabels([{ key: 'constructor', operator: 'Exists', values: [] }], {}));
});

for (const [given, complaint] of [
  ['{}', /a list/],
  ['[{podSelektor: {}}]', /podSelektor must be left out/],
  ['[{podSelector: {matchLabels: {a: 1}}}]', /matchLabels.a must be a text/],
  ['[{podSelector: {matchExpressions: [{key: a, operator: Near}]}}]', /operator must be one of/],
  ['[{podSelector: {matchExpressions: [{key: a, operator: In}]}}]', /values must be not empty/],
  ['[{podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}]', /values must be empty/],
  ['[', /not YAML/],
] as const) {
  test(`selectors ${given} are refused`, async () => {
    await assert.rejects(parseSelectors(given), { code: 'SELECTOR_INVALID', message: complaint });
  });
}

test('any YAML gives selectors or one clear error', async () => {
  await fc.assert(
    fc.asyncProperty(fc.oneof(fc.json(), fc.string()), async (text) => {
      await parseSelectors(text).catch((error) => assert.equal(error.code, 'SELECTOR_INVALID'));
    }),
    { numRuns: 300 },
  );
});

const rules = { selectors: defaults, excludeNamespaces: ['kube-system'], systemNamespaces: ['istio-system'] };
const base: PodObject = {
  uid: 'u',
  namespace: 'demo',
  name: 'p',
  serviceAccount: 'default',
  labels: { [KEY]: 'ambient' },
  annotations: {},
  hostNetwork: false,
  terminal: false,
  staticUid: null,
  ips: [],
};

for (const [change, expected] of [
  [{}, 'selected'],
  [{ hostNetwork: true }, 'host-network'],
  [{ annotations: { 'sidecar.istio.io/status': '' } }, 'has-sidecar'],
  [{ namespace: 'kube-system' }, 'excluded-namespace'],
  [{ namespace: 'istio-system', labels: { app: 'ztunnel', [KEY]: 'ambient' } }, 'is-agent'],
  [{ labels: {} }, 'not-selected'],
] as [Partial<PodObject>, Eligibility][]) {
  test(`a pod with ${JSON.stringify(change)} is ${expected}`, () => {
    const pod = { ...base, ...change };
    assert.equal(eligibilityOf(pod, { name: pod.namespace, labels: {} }, rules), expected);
  });
}

test('a namespace that is not known enrols nothing', () => {
  assert.equal(eligibilityOf(base, null, rules), 'namespace-unknown');
});

test('annotations change the rules of a pod, and one that is not understood counts as absent', () => {
  const complaints: string[] = [];
  const of = (annotations: Record<string, string>) =>
    podRulesOf({ annotations }, defaultPodRules, (annotation, value) => complaints.push(`${annotation}=${value}`));
  assert.equal(of({ 'ambient.istio.io/bypass-inbound-capture': 'T' }).ingress, true);
  assert.equal(of({ 'ambient.istio.io/dns-capture': 'true' }).dnsCapture, true);
  assert.deepEqual(of({ 'istio.io/reroute-virtual-interfaces': ' net1, net2 ,' }).virtualInterfaces, ['net1', 'net2']);
  assert.deepEqual(of({ 'ambient.istio.io/bypass-inbound-capture': 'yes' }), defaultPodRules);
  assert.deepEqual(complaints, ['ambient.istio.io/bypass-inbound-capture=yes']);
});

test('any object of the API is read or passed over', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.jsonValue(),
        fc.object({
          key: fc.constantFrom('metadata', 'spec', 'status', 'uid', 'name', 'namespace', 'labels', 'podIPs'),
        }),
      ),
      (object) => {
        readPod(object);
        readNamespace(object);
      },
    ),
  );
  const pod = readPod({
    metadata: { uid: 'u', name: 'n', namespace: 's', labels: { a: 'b', c: 1 } },
    status: { phase: 'Succeeded', podIP: '10.0.0.1', podIPs: [{ ip: '::ffff:10.0.0.2' }, { ip: 'bad' }] },
  });
  assert.deepEqual(pod, { ...base, namespace: 's', name: 'n', labels: { a: 'b' }, terminal: true, ips: ['10.0.0.2'] });
});
