import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { InboundQuery, Pod } from '../../src/filters/plane.ts';
import type { InboundPlan, OutboundPlan } from '../../src/routing/plan.ts';
import type { PlanQuery } from '../../src/worker/messages.ts';
import { PlanCache } from '../../src/worker/plan-cache.ts';
import { deliverTo, POD, tunnelTo } from './support/plane-under-test.ts';

const pod = { info: POD } as Pod;
const target = { ip: '10.0.0.1', port: 80 };
const plan = tunnelTo({ outbound: 1, plaintext: 2, hbone: 3 }, 80);

/** A cache whose questions wait until the test answers them. */
function cacheUnderTest() {
  const asked: { query: PlanQuery; answer: (plan: OutboundPlan | InboundPlan | null) => void }[] = [];
  const cache = new PlanCache((query, answer) => {
    const id = asked.length;
    asked.push({ query, answer: (given) => answer(given, id) });
  });
  const got: (OutboundPlan | InboundPlan)[] = [];
  const outbound = () => cache.outbound(pod, target, '10.0.0.2', (answer) => got.push(answer));
  const inbound = (query: InboundQuery) => cache.inbound(pod, query, (answer) => got.push(answer));
  return { asked, cache, got, outbound, inbound };
}

test('connections that want the same plan share one question', () => {
  const { asked, got, outbound } = cacheUnderTest();
  assert.equal(outbound(), null);
  assert.equal(outbound(), null);
  assert.equal(asked.length, 1);
  asked[0]!.answer(plan);
  assert.deepEqual(got, [plan, plan]);
  assert.equal(outbound(), plan);
  assert.equal(asked.length, 1);
});

test('a plan that became invalid is asked for again, the others stay', () => {
  const { asked, cache, outbound, inbound } = cacheUnderTest();
  const query = { kind: 'plaintext', peerIp: '10.0.0.3', originalDestination: target } as const;
  outbound();
  inbound(query);
  asked[0]!.answer(plan);
  asked[1]!.answer(deliverTo(target));
  cache.invalidate([0]);
  assert.deepEqual(inbound(query), deliverTo(target));
  assert.equal(outbound(), null);
  assert.equal(asked.length, 3);
  asked[2]!.answer(plan);
  // The number of the first plan says nothing about the one in its place.
  cache.invalidate([0]);
  assert.equal(outbound(), plan);
  assert.equal(cache.size, 2);
});

test('an answer for a pod that stopped meanwhile is given but not kept', () => {
  const { asked, cache, got, outbound } = cacheUnderTest();
  outbound();
  cache.forget(POD.uid);
  asked[0]!.answer(plan);
  assert.deepEqual(got, [plan]);
  assert.equal(cache.size, 0);
  assert.equal(outbound(), null);
  assert.equal(asked.length, 2);
});

test('of a pod that stopped no plan is left', () => {
  const { asked, cache, outbound } = cacheUnderTest();
  outbound();
  asked[0]!.answer(plan);
  cache.forget(POD.uid);
  assert.equal(cache.size, 0);
});

test('a plan that could not be made refuses those who wait, and the next one asks again', () => {
  const { asked, got, outbound } = cacheUnderTest();
  outbound();
  outbound();
  asked[0]!.answer(null);
  assert.deepEqual(
    got.map((answer) => answer.kind === 'reject' && answer.reason.tag),
    ['not-planned', 'not-planned'],
  );
  assert.equal(outbound(), null);
  assert.equal(asked.length, 2);
});

test('what a peer writes into one field cannot pass for another field', () => {
  const { asked, inbound } = cacheUnderTest();
  const query = { kind: 'hbone', localIp: '10.0.0.1', peerIp: '10.0.0.2', fromNetwork: null } as const;
  inbound({ ...query, authority: 'a:80', forwardedHost: 'b c' });
  asked[0]!.answer(deliverTo(target));
  assert.equal(inbound({ ...query, authority: 'a:80 b', forwardedHost: 'c' }), null);
  assert.equal(asked.length, 2);
});

test('plans for authorities longer than any name are not kept', () => {
  const { asked, inbound } = cacheUnderTest();
  const query: InboundQuery = {
    kind: 'hbone',
    localIp: '10.0.0.1',
    peerIp: '10.0.0.2',
    authority: 'a'.repeat(10_000),
    forwardedHost: null,
    fromNetwork: null,
  };
  inbound(query);
  asked[0]!.answer(deliverTo(target));
  assert.equal(inbound(query), null);
  assert.equal(asked.length, 2);
});
