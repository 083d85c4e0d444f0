import assert from 'node:assert/strict';
import { test } from 'node:test';
import { contextOf, type DeliverPlan, type InboundEnds, policyFactsOf } from '../../src/inbound/context.ts';
import { factsOf } from '../../src/policy/facts.ts';
import type { WorkloadLabels } from '../../src/routing/plan.ts';

const destination: WorkloadLabels = {
  uid: 'uid-server',
  name: 'server',
  workloadName: 'server',
  workloadType: 'deployment',
  namespace: 'shop',
  canonicalName: 'server',
  canonicalRevision: 'v1',
  clusterId: 'Kubernetes',
  region: '',
  zone: '',
  identity: 'spiffe://cluster.local/ns/shop/sa/server',
};

const plan: DeliverPlan = {
  kind: 'deliver',
  target: { ip: '10.0.0.2', port: 8080 },
  source: null,
  destination,
  service: null,
  appTunnel: null,
};

const ends: InboundEnds = {
  destinationIp: '10.0.0.2',
  destinationPort: 15008,
  peerIdentity: 'spiffe://cluster.local/ns/shop/sa/client',
  authority: '10.0.0.2:8080',
};

const others: readonly Partial<InboundEnds>[] = [
  { destinationIp: '10.0.0.3' },
  { destinationPort: 15009 },
  { peerIdentity: 'spiffe://cluster.local/ns/shop/sa/another' },
  { authority: '10.0.0.2:9090' },
  { peerIdentity: '', authority: '' },
];

test('connections that are alike share one context, others get their own', () => {
  const first = contextOf(plan, ends, null);
  assert.equal(contextOf(plan, { ...ends }, null), first);
  for (const change of others) {
    const other = { ...ends, ...change };
    const context = contextOf(plan, other, null);
    assert.equal(context.sourceIdentity, other.peerIdentity);
    assert.equal(context.labels.sourcePrincipal, other.peerIdentity);
    assert.equal(context.hboneAddress, other.authority);
    assert.equal(context.destinationAddress, `${other.destinationIp}:${other.destinationPort}`);
    assert.equal(context.labels.mutualTls, other.authority !== '');
    assert.deepEqual(contextOf(plan, ends, null), first);
  }
  assert.notEqual(contextOf({ ...plan }, ends, null), first);
});

test('what a source says of itself goes into no other context', () => {
  const told = { ...destination, workloadName: 'guest', identity: ends.peerIdentity };
  const context = contextOf(plan, ends, told);
  assert.equal(context.source, told);
  assert.equal(context.labels.sourceApp, 'guest');
  assert.equal(context.labels.isShared, false);
  const shared = contextOf(plan, ends, null);
  assert.equal(shared.source, null);
  assert.equal(shared.labels.isShared, true);
});

test('policies see each connection as it is, whoever came before it', () => {
  const peers = [
    ['10.0.0.1', 'spiffe://cluster.local/ns/shop/sa/client', plan.target],
    ['10.0.0.1', 'spiffe://cluster.local/ns/shop/sa/another', plan.target],
    ['10.0.0.9', 'spiffe://cluster.local/ns/shop/sa/another', plan.target],
    ['10.0.0.9', null, plan.target],
    ['10.0.0.9', null, { ip: '10.0.0.2', port: 9090 }],
    ['10.0.0.9', null, { ip: '10.0.0.3', port: 9090 }],
  ] as const;
  for (const order of [peers, [...peers].reverse(), peers]) {
    for (const [sourceIp, sourceIdentity, target] of order) {
      const seen = policyFactsOf(plan, sourceIp, sourceIdentity, target);
      const same = { sourceIp, sourceIdentity, destinationIp: target.ip, destinationPort: target.port };
      assert.deepEqual(seen, same);
      assert.deepEqual(factsOf(seen), factsOf(same));
      assert.equal(policyFactsOf(plan, sourceIp, sourceIdentity, { ...target }), seen);
    }
  }
});
