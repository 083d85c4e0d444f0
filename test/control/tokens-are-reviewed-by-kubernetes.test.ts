import assert from 'node:assert/strict';
import { createSign, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { createAuthentication } from '../../src/control/authentication.ts';
import { createTokenReviewer } from '../../src/control/token-review.ts';
import { createKubeApi, type KubeApi, KubeError } from '../../src/kube/api.ts';
import { noApiServer, startApiServer } from '../cni/support/api-server.ts';
import { eventually } from '../cni/support/eventually.ts';
import { PATIENCE_MS } from '../support/patience.ts';

const IP = '10.0.0.1';
const PEER = { address: '10.0.0.1:1234', certificate: null };
const NAMESPACE = '/api/v1/namespaces/default';

test('tokens are what the API server says they are', { skip: noApiServer }, async (t) => {
  const server = await startApiServer(t);
  const { port, serviceAccountDir } = server;
  const apiWithin = (timeoutMs: number): KubeApi => {
    const api = createKubeApi({ host: '127.0.0.1', port, serviceAccountDir, timeoutMs });
    t.after(() => api.close());
    return api;
  };
  const patient = apiWithin(PATIENCE_MS);
  let [api, reviews] = [patient, 0];
  const counting: Pick<KubeApi, 'create'> = {
    create(path, object) {
      reviews++;
      return api.create(path, object);
    },
  };
  const reviewer = createTokenReviewer({ api: counting, audience: 'istio-ca' });
  const uid = (await server.create(`${NAMESPACE}/serviceaccounts`, { metadata: { name: 'agent' } })).metadata.uid;
  const pod = await server.create(`${NAMESPACE}/pods`, {
    metadata: { name: 'agent-1' },
    spec: { serviceAccountName: 'agent', nodeName: 'node1', containers: [{ name: 'app', image: 'none' }] },
  });
  const bound = { kind: 'Pod', apiVersion: 'v1', name: 'agent-1', uid: pod.metadata.uid };

  async function issue(spec: object): Promise<string> {
    const made = await server.create(`${NAMESPACE}/serviceaccounts/agent/token`, {
      ...{ apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec },
    });
    return (made as unknown as { status: { token: string } }).status.token;
  }

  /** A token as the API server would sign it, which it has not made. */
  function sign(claims: object, key = readFileSync(join(server.serviceAccountDir, '../sa.key'))): string {
    const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const now = Math.floor(Date.now() / 1000);
    const payload = {
      ...{ iss: 'https://kubernetes.default.svc', sub: 'system:serviceaccount:default:agent', aud: ['istio-ca'] },
      ...{ iat: now - 100, nbf: now - 100, exp: now + 1000 },
      'kubernetes.io': { namespace: 'default', serviceaccount: { name: 'agent', uid } },
      ...claims,
    };
    const text = `${part({ alg: 'RS256' })}.${part(payload)}`;
    return `${text}.${createSign('sha256').update(text).sign(key, 'base64url')}`;
  }

  await t.test('a token bound to a pod says which', async () => {
    const token = await issue({ audiences: ['istio-ca'], boundObjectRef: bound });
    const agent = { namespace: 'default', serviceAccount: 'agent', node: null };
    const before = reviews;
    assert.deepEqual(await reviewer.review(token, IP), { ...agent, pod: { name: 'agent-1', uid: pod.metadata.uid } });
    await Promise.all([reviewer.review(token, IP), reviewer.review(token, IP)]);
    assert.equal(reviews - before, 1, 'it is remembered');
    // What the other cases rely on: this is how a good one is signed.
    assert.deepEqual(await reviewer.review(sign({}), IP), { ...agent, pod: null });
  });

  const refused = {
    'one for another audience': () => issue({ audiences: ['other'], boundObjectRef: bound }),
    'one for the API server itself': () => issue({ boundObjectRef: bound }),
    'one that has expired': async () => sign({ exp: Math.floor(Date.now() / 1000) - 90 }),
    'one that is not valid yet': async () => sign({ nbf: Math.floor(Date.now() / 1000) + 1000 }),
    'one of another issuer': async () => sign({ iss: 'https://elsewhere' }),
    'one of an account that is gone': async () =>
      sign({ 'kubernetes.io': { namespace: 'default', serviceaccount: { name: 'agent', uid: 'another' } } }),
    'one that was changed': async () => {
      const [head, , signature] = (await issue({ audiences: ['istio-ca'] })).split('.');
      return `${head}.${sign({ sub: 'system:serviceaccount:kube-system:admin' }).split('.')[1]}.${signature}`;
    },
    'one that is signed by nobody': async () => {
      const [, payload] = sign({}).split('.');
      return `${Buffer.from('{"alg":"none"}').toString('base64url')}.${payload}.`;
    },
    garbage: async () => 'garbage',
    'the administrator’s': async () => 'admin-token',
  };
  for (const [what, make] of Object.entries(refused)) {
    await t.test(`refused: ${what}`, async () => {
      const token = await make();
      const before = reviews;
      const verdict = await reviewer.review(token, IP);
      assert.ok('refused' in verdict, JSON.stringify(verdict));
      assert.ok(!verdict.refused.includes(token));
      await reviewer.review(token, IP);
      assert.equal(reviews - before, 2, 'a refusal is not remembered');
    });
  }

  await t.test('while the API server does not answer, only who was reviewed a moment ago is known', async () => {
    const [known, unknown] = [await issue({ audiences: ['istio-ca'] }), await issue({ audiences: ['istio-ca'] })];
    await reviewer.review(known, IP);
    await server.freeze();
    api = apiWithin(1000);
    try {
      assert.ok(!('refused' in (await reviewer.review(known, IP))));
      await assert.rejects(reviewer.review(unknown, IP), { code: 'KUBE_STALLED' });
    } finally {
      server.thaw();
      api = patient;
    }
    assert.ok(!('refused' in (await reviewer.review(unknown, IP))));
  });

  await t.test('the token of a pod that is gone is refused', async () => {
    const token = await issue({ audiences: ['istio-ca'], boundObjectRef: bound });
    /** Another one each time: both the API server and the reviewer remember for a while whom they have let in. */
    const another = () =>
      sign({
        'kubernetes.io': {
          namespace: 'default',
          serviceaccount: { name: 'agent', uid },
          pod: { name: 'agent-1', uid: bound.uid },
        },
        jti: randomUUID(),
      });
    assert.ok(!('refused' in (await reviewer.review(another(), IP))));
    await server.call('DELETE', `${NAMESPACE}/pods/agent-1?gracePeriodSeconds=0`);
    // The API server looks at a copy of the pods that it keeps, and which hears of this a little later.
    await eventually('refused', async () => 'refused' in (await reviewer.review(another(), IP)));
    const verdict = await reviewer.review(token, IP);
    assert.ok('refused' in verdict);
  });
});

test('an API server that is away, slow, overloaded or confused vouches for nobody', async () => {
  const sure = { authenticated: true, audiences: ['istio-ca'] };
  const user = { username: 'system:serviceaccount:a:b', groups: ['system:serviceaccounts'] };
  const answers: readonly (readonly [string, unknown])[] = [
    ['no status', {}],
    ['null', null],
    ['a text', 'yes'],
    ['not authenticated', { status: { ...sure, authenticated: false, user } }],
    ['authenticated in words', { status: { ...sure, authenticated: 'true', user } }],
    ['no audiences', { status: { authenticated: true, user } }],
    ['other audiences', { status: { ...sure, audiences: ['https://kubernetes.default.svc'], user } }],
    ['no user', { status: sure }],
    ['a user that is no service account', { status: { ...sure, user: { ...user, username: 'system:node:n1' } } }],
    ['a name with more parts', { status: { ...sure, user: { ...user, username: 'system:serviceaccount:a:b:c' } } }],
    ['a name without parts', { status: { ...sure, user: { ...user, username: 'system:serviceaccount::' } } }],
    ['another group', { status: { ...sure, user: { ...user, groups: ['system:authenticated'] } } }],
  ];
  for (const [what, answer] of answers) {
    const reviewer = createTokenReviewer({ api: { create: async () => answer }, audience: 'istio-ca' });
    assert.ok('refused' in (await reviewer.review('token', IP)), what);
  }

  const metadata = { authorization: 'Bearer my-secret-token' };
  for (const error of [
    new KubeError('KUBE_UNREACHABLE', 'connection refused'),
    new KubeError('KUBE_STALLED', 'no answer'),
    new KubeError('KUBE_STATUS', '429 too many', 429),
    new KubeError('KUBE_STATUS', '410 gone my-secret-token', 410),
    new KubeError('KUBE_STATUS', '403 forbidden', 403),
  ]) {
    const api = { create: () => Promise.reject(error) };
    const tokens = createTokenReviewer({ api, audience: 'istio-ca' });
    const authenticate = createAuthentication({
      ...{ tokens, roots: () => [], isRevoked: () => false, trustDomain: 'cluster.local', clusterId: 'Kubernetes' },
    });
    await assert.rejects(authenticate(metadata, PEER), (refusal: Error & { code: string; reason: string }) => {
      assert.equal(refusal.code, 'UNAVAILABLE');
      assert.doesNotMatch(`${refusal.message} ${refusal.reason}`, /my-secret-token/);
      return true;
    });
  }
});

test('a good answer is remembered for a minute at most, and not beyond the end of the token', async () => {
  let now = 1_000_000_000_000;
  let passed = 0;
  let reviews = 0;
  const status = {
    ...{ authenticated: true, audiences: ['istio-ca'] },
    user: { username: 'system:serviceaccount:a:b', groups: ['system:serviceaccounts'] },
  };
  const api = {
    async create() {
      reviews++;
      return { status };
    },
  };
  const reviewer = createTokenReviewer({
    ...{ api, audience: 'istio-ca', rememberMs: 3_600_000 },
    now: () => now,
    monotonic: () => passed,
  });
  const pass = (ms: number) => {
    now += ms;
    passed += ms;
  };
  const until = (ms: number) => `e30.${Buffer.from(JSON.stringify({ exp: ms / 1000 })).toString('base64url')}.x`;
  for (const [token, lasts] of [
    ['opaque', 60_000],
    [until(now + 70_000), 10_000],
  ] as const) {
    reviews = 0;
    await reviewer.review(token, IP);
    pass(lasts - 1);
    await reviewer.review(token, IP);
    assert.equal(reviews, 1);
    pass(1);
    await reviewer.review(token, IP);
    assert.equal(reviews, 2);
    now -= 3_600_000;
    pass(59_999);
    await reviewer.review(token, IP);
    pass(1);
    now += 3_600_000 - 60_000;
    await reviewer.review(token, IP);
    assert.equal(reviews, 3, 'the clock was set back and forth');
  }
});

test('callers of other clusters are not known here', async () => {
  const caller = { namespace: 'a', serviceAccount: 'b', pod: null, node: null };
  const authenticate = createAuthentication({
    tokens: { review: async () => caller },
    ...{ roots: () => [], isRevoked: () => false, trustDomain: 'cluster.local', clusterId: 'Kubernetes' },
  });
  const token = { authorization: 'Bearer x' };
  for (const cluster of [{}, { clusterid: '' }, { clusterid: 'Kubernetes' }]) {
    assert.equal(await authenticate({ ...token, ...cluster }, PEER), caller);
  }
  const refused = { code: 'UNAUTHENTICATED' };
  await assert.rejects(authenticate({ ...token, clusterid: 'west' }, PEER), refused);
  for (const authorization of ['x', 'Basic x', 'Bearer ', 'Bearer a b', 'Bearer ä', `Bearer ${'x'.repeat(20_000)}`]) {
    await assert.rejects(authenticate({ authorization }, PEER), refused, authorization.slice(0, 20));
  }
});

test('callers that send many tokens at once do not keep others from being reviewed', async () => {
  const status = {
    ...{ authenticated: true, audiences: ['istio-ca'] },
    user: { username: 'system:serviceaccount:a:b', groups: ['system:serviceaccounts'] },
  };
  const answers: PromiseWithResolvers<{ status: typeof status }>[] = [];
  const api = {
    create() {
      answers.push(Promise.withResolvers());
      return answers.at(-1)!.promise;
    },
  };
  const authenticate = createAuthentication({
    tokens: createTokenReviewer({ api, audience: 'istio-ca' }),
    ...{ roots: () => [], isRevoked: () => false, trustDomain: 'cluster.local', clusterId: 'Kubernetes' },
  });
  let ports = 1000;
  const call = (ip: string, token: string) =>
    authenticate({ authorization: `Bearer ${token}` }, { address: `${ip}:${ports++}`, certificate: null });
  const guesses: Promise<unknown>[] = [];
  for (let attacker = 0; attacker < 8; attacker++) {
    for (let index = 0; index < 16; index++) guesses.push(call(`10.0.1.${attacker}`, `guess-${attacker}-${index}`));
    await assert.rejects(call(`10.0.1.${attacker}`, 'one-more'), { code: 'UNAVAILABLE' });
  }
  // Now there are many: those that have several wait, everybody else is reviewed.
  for (let index = 0; index < 4; index++) guesses.push(call('10.0.2.1', `late-${index}`));
  await assert.rejects(call('10.0.2.1', 'late-5'), { code: 'UNAVAILABLE' });
  const agents = Array.from({ length: 100 }, (_, index) => call(`10.0.3.${index}`, `agent-${index}`));
  // One token is reviewed once, however many calls are made with it.
  for (let index = 0; index < 8; index++) agents.push(call('10.0.3.0', 'agent-0'));
  assert.equal(answers.length, 8 * 16 + 4 + 100);
  for (const { resolve } of answers) resolve({ status });
  for (const { serviceAccount } of await Promise.all(agents)) assert.equal(serviceAccount, 'b');
  await Promise.all(guesses);

  const again = Array.from({ length: 16 }, (_, index) => call('10.0.1.0', `again-${index}`));
  for (const { resolve } of answers) resolve({ status });
  await Promise.all(again);
});
