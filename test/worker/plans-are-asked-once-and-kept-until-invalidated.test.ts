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
  const cache = new PlanCache((query, answer) => asked.push({ query, answer }));
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

test('an answer to a question of before an invalidation is given but not kept', () => {
  const { asked, cache, got, outbound } = cacheUnderTest();
  outbound();
  cache.invalidate(null);
  asked[0]!.answer(plan);
  assert.deepEqual(got, [plan]);
  assert.equal(outbound(), null);
  assert.equal(asked.length, 2);
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
