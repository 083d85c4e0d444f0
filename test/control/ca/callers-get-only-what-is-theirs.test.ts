import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '../../cni/support/eventually.ts';
import { scratchFolder } from '../../identity/scratch.ts';
import {
  AGENT_TOKEN,
  caUnderTest,
  digest,
  OTHER_NODE_TOKEN,
  STRANGER_TOKEN,
  TOKENS,
  WEB,
} from './mesh-ca-under-test.ts';
import { impersonating, makeCsr } from './request.ts';

const IMPERSONATION = { code: 16, details: 'request impersonation authentication failure' };
const STRANGER = { code: 16, details: 'request authenticate failure' };

test('an agent gets the identities of its own node and of no other', async (t) => {
  const ca = await caUnderTest(t);
  const csr = makeCsr(scratchFolder(t));
  const ask = (identity: string, token = AGENT_TOKEN) => ca.request({ csr, ...impersonating(identity) }, token);
  ca.pods.running.add('node2/default/db');
  await ask(WEB);
  await ask('spiffe://cluster.local/ns/default/sa/db', OTHER_NODE_TOKEN);
  await assert.rejects(ask('spiffe://cluster.local/ns/default/sa/db'), IMPERSONATION);
  await assert.rejects(ask(WEB, OTHER_NODE_TOKEN), IMPERSONATION);
  assert.match(ca.lines.join('\n'), /no pod of default\/db is known on node node1/);
});

test('an account that is no agent’s may not speak for others, not even on its own node', async (t) => {
  const ca = await caUnderTest(t);
  const csr = makeCsr(scratchFolder(t));
  await assert.rejects(ca.request({ csr, ...impersonating(WEB) }, STRANGER_TOKEN), IMPERSONATION);
  assert.match(ca.lines.join('\n'), /default\/stranger is not in CA_TRUSTED_NODE_ACCOUNTS/);
});

test('nobody may speak for others when no agent is named', async (t) => {
  const ca = await caUnderTest(t, { trustedAccounts: [] });
  const csr = makeCsr(scratchFolder(t));
  await assert.rejects(ca.request({ csr, ...impersonating(WEB) }), IMPERSONATION);
});

test('identities of other trust domains and texts that are none are refused', async (t) => {
  const ca = await caUnderTest(t);
  const csr = makeCsr(scratchFolder(t));
  for (const identity of [
    'spiffe://other.domain/ns/default/sa/web',
    'spiffe:///ns/default/sa/web',
    'spiffe://cluster.local/ns//sa/web',
    'spiffe://cluster.local/ns/default/sa/',
    'spiffe://cluster.local/ns/default/sa/web/',
    'spiffe://cluster.local/ns/default/sa/web, URI:spiffe://cluster.local/ns/default/sa/admin',
    'spiffe://cluster.local/ns/../sa/web',
    'spiffe://CLUSTER.local/ns/default/sa/web',
    'SPIFFE://cluster.local/ns/default/sa/web',
    ' spiffe://cluster.local/ns/default/sa/web',
    'cluster.local/ns/default/sa/web',
    'x',
    '',
  ]) {
    await assert.rejects(ca.request({ csr, ...impersonating(identity) }), IMPERSONATION, identity);
  }
  for (const value of [{ numberValue: 1 }, { boolValue: true }, { structValue: {} }, {}]) {
    await assert.rejects(ca.request({ csr, metadata: { ImpersonatedIdentity: value } }), { code: 3 });
  }
});

test('a token of an earlier pod of the agent’s name is refused', async (t) => {
  const ca = await caUnderTest(t);
  const csr = makeCsr(scratchFolder(t));
  ca.pods.agentUid = 'uid-2';
  await assert.rejects(ca.request({ csr, ...impersonating(WEB) }), IMPERSONATION);
});

test('a pod that the control plane learns of a moment later is waited for', async (t) => {
  const ca = await caUnderTest(t);
  const csr = makeCsr(scratchFolder(t));
  const request = ca.request({ csr, ...impersonating('spiffe://cluster.local/ns/default/sa/new') });
  await delay(300);
  ca.pods.running.add('node1/default/new');
  assert.equal((await request).length, 2);
});

test('who has no token that is known gets nothing, and is told nothing', async (t) => {
  const ca = await caUnderTest(t);
  const csr = makeCsr(scratchFolder(t));
  for (const token of [null, 'guess', `${AGENT_TOKEN} `, 'x'.repeat(7000), digest(AGENT_TOKEN)]) {
    await assert.rejects(ca.request({ csr, ...impersonating(WEB) }, token), STRANGER);
    await assert.rejects(ca.request({ csr }, token), STRANGER);
  }
  assert.equal(ca.count('citadel_server_authentication_failure_count'), 10);
  assert.doesNotMatch(ca.lines.join('\n'), /guess/);
});

test('strangers do not fill the log', async (t) => {
  const ca = await caUnderTest(t);
  let now = performance.now();
  t.mock.method(performance, 'now', () => now);
  const requests = Array.from({ length: 200 }, () => assert.rejects(ca.request({ csr: '' }, 'guess'), STRANGER));
  await Promise.all(requests);
  now += 1000;
  await assert.rejects(ca.request({ csr: '' }, 'guess'), STRANGER);
  const lines = ca.lines.filter((line) => line.includes('refused a certificate'));
  assert.ok(lines.length < 150, `${lines.length} lines`);
  const omitted = lines.map((line) => Number(/refusals_not_logged=(\d+)/.exec(line)?.[1] ?? 0));
  assert.equal(lines.length + omitted.reduce((sum, count) => sum + count, 0), 201);
  assert.equal(ca.count('culvert_ca_refused_requests', 'authentication'), 201);
});

test('tokens that are taken out of the file, or added, count at once', async (t) => {
  const ca = await caUnderTest(t);
  const csr = makeCsr(scratchFolder(t));
  const added = `${TOKENS}  - {sha256: ${digest('late')}, namespace: default, serviceAccount: late}\n`;
  writeFileSync(ca.tokensFile, added.replace(/.*stranger.*\n/, ''));
  await eventually('the new token is known', () => ca.request({ csr }, 'late'));
  await assert.rejects(ca.request({ csr }, STRANGER_TOKEN), STRANGER);
});

test('a file of tokens that cannot be used leaves those of before, and shows no token', async (t) => {
  const ca = await caUnderTest(t);
  const csr = makeCsr(scratchFolder(t));
  const bad: readonly (readonly [string, RegExp])[] = [
    [
      'tokens: [{sha256: plain-token, namespace: a, serviceAccount: b}]',
      /token 1: sha256 is not 64 hexadecimal digits/,
    ],
    [`${TOKENS}  - {sha256: ${digest('a')}}`, /token 4 has no namespace, serviceAccount/],
    [`${TOKENS}  - {sha256: ${digest(AGENT_TOKEN)}, namespace: a, serviceAccount: b}`, /token 4 is there twice/],
    [`${TOKENS}  - {sha256: ${digest('a')}, namespace: a, serviceAccount: b, pod: c}`, /pod and uid go together/],
    [`${TOKENS}  - {sha256: ${digest('a')}, namespace: a, serviceAccount: b, nodes: c}`, /nodes.{1,2} is not known/],
    ['tokens: {}', /needs a list/],
    ['- [', /the file of tokens cannot be used/],
  ];
  for (const [text, complaint] of bad) {
    writeFileSync(ca.tokensFile, text);
    await eventually(`the log says ${complaint}`, () => ca.lines.some((line) => complaint.test(line)));
    await ca.request({ csr, ...impersonating(WEB) });
  }
  assert.doesNotMatch(ca.lines.join('\n'), /plain-token/);
});
