import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { ExplainedConnection, Explanation } from '../../src/explain/types.ts';
import { identityOf, meshNetwork, policy, service, startAgent, workload } from '../support/mesh.ts';
import { dial, fate, listenEcho } from '../support/pod-sockets.ts';

const cli = fileURLToPath(new URL('../../src/cli.ts', import.meta.url));
const run = promisify(execFile);

test('the agent explains where connections go and why they are allowed', async (t) => {
  const network = await meshNetwork(t);
  const client = await network.addPod('client');
  const server = await network.addPod('server');
  const outside = await network.addPod('outside');
  const echo = { 'demo/echo.demo.svc.cluster.local': { 80: 8080 } };
  const mesh = (...policies: Record<string, unknown>[]) => ({
    workloads: [
      workload(client),
      workload(outside, { protocol: 'TCP' }),
      workload(server, { services: echo, authorizationPolicies: ['demo/friends'] }),
    ],
    services: [service('echo', '10.96.0.10', { 80: 8080 })],
    policies: [
      policy('friends', 'WorkloadSelector', 'Allow', [{ principals: [{ Suffix: '/sa/client' }] }]),
      ...policies,
    ],
  });
  const agent = await startAgent({ network, mesh: mesh() });
  for (const pod of [client, server]) await agent.enrol(pod);
  await listenEcho(server, 8080);
  const ask = async <T>(query: string) => {
    const { status, body } = await agent.get(`/explain?${query}`);
    assert.equal(status, 200, body);
    return JSON.parse(body) as T;
  };
  const culvert = (...args: string[]) =>
    run(process.execPath, [cli, 'explain', '--admin', String(agent.adminPort), ...args]).then(
      ({ stdout }) => ({ code: 0, text: stdout }),
      (error: { code: number; stderr: string }) => ({ code: error.code, text: error.stderr }),
    );

  await t.test('the explanation says what then happens', async () => {
    const explained = await ask<Explanation>('from=demo/client&to=echo:80');
    assert.equal(explained.outcome, 'allowed');
    assert.ok(explained.route.kind === 'tunnel');
    assert.deepEqual(
      explained.route.endpoints.map(({ address, expectedIdentities }) => [address, expectedIdentities]),
      [[`${server.ipv4}:15008`, [identityOf(server)]]],
    );
    const connection = dial(client, '10.96.0.10', 80);
    connection.send('hello');
    assert.equal(await connection.text(5), 'hello');
    connection.socket.destroy();
    const denied = await ask<Explanation>(`from=demo/outside&to=demo/server:8080`);
    assert.equal(denied.outcome, 'denied');
    assert.equal(await fate(dial(outside, server.ipv4, 8080)), 'ECONNRESET');
  });

  await t.test('a live connection is explained from both of its ends, before and after a policy edit', async () => {
    await agent.atRest();
    const connection = dial(client, '10.96.0.10', 80);
    connection.send('hello');
    assert.equal(await connection.text(5), 'hello');
    const { workloadState } = await agent.dump();
    const connections = Object.values(workloadState).map(({ connections }) => connections!);
    const [outbound] = connections.flatMap((each) => each.outbound);
    const [inbound] = connections.flatMap((each) => each.inbound);
    const out = await ask<ExplainedConnection>(`connection=${outbound!.id}`);
    assert.deepEqual(
      [out.connection.direction, out.connection.pod, out.connection.originalDst, out.connection.actualDst],
      ['outbound', 'demo/client', '10.96.0.10:80', `${server.ipv4}:15008`],
    );
    assert.deepEqual([out.bytesFromClient, out.bytesFromServer], [5, 5]);
    assert.deepEqual(out.expectedIdentities, [identityOf(server)]);
    assert.equal(out.policy, null);
    assert.equal(out.now?.outcome, 'allowed');
    const into = await ask<ExplainedConnection>(`connection=${inbound!.id}`);
    assert.ok(into.policy?.kind === 'judged');
    assert.deepEqual(into.policy.as, {
      identity: identityOf(client),
      source: client.ipv4,
      destination: `${server.ipv4}:8080`,
    });
    assert.deepEqual(into.policy.decidedBy, { policy: 'demo/friends', rule: 0 });
    const { code, text } = await culvert('--connection', inbound!.id!);
    assert.equal(code, 0, text);
    assert.match(text, /^connection \d+-\d+: inbound, HBONE, .* 5 bytes from the client, 5 from the server\n/);
    assert.match(text, /policy {2}ALLOW: allowed by: demo\/friends, rule 0/);
    connection.socket.destroy();
  });

  await t.test('culvert explain prints the verdict and the rule that decided', async () => {
    await agent.apply(mesh(policy('no-8080', 'Namespace', 'Deny', [{ destinationPorts: [8080] }])));
    const { code, text } = await culvert('--from', 'demo/client', '--to', 'echo.demo', '--port', '80');
    assert.equal(code, 0, text);
    assert.match(text, /^The connection goes through a tunnel and is denied: explicitly denied by: demo\/no-8080\.\n/);
    assert.match(text, /policy {2}DENY: explicitly denied by: demo\/no-8080, rule 0/);
    assert.match(text, /- demo\/friends {2}ALLOW, WorkloadSelector: matches by rule 0/);
    const json = await culvert('--from', 'demo/client', '--to', 'echo.demo:80', '--json');
    assert.equal(JSON.parse(json.text).outcome, 'denied');
  });

  await t.test('what cannot be answered is answered by a sentence, with status 400', async () => {
    for (const [query, sentence] of [
      ['', /^from= is missing/],
      ['from=demo/client', /^to= is missing/],
      ['from=demo/client&to=nothing:80', /^the mesh state has neither a service nor a workload nothing/],
      ['from=demo/client&from=b&to=c:80', /^from= is given more than once/],
      ['form=demo/client&to=c:80', /^"form" is no parameter of \/explain/],
      ['connection=1-999999', /^no live connection has the id "1-999999": \/config_dump lists them/],
      ['connection=99-1', /^no live connection has the id "99-1"/],
      ['connection=x', /^no live connection has the id "x"/],
      ['connection=1-1&from=a', /^connection= stands alone/],
    ] as const) {
      const { status, body } = await agent.get(`/explain?${query}`);
      assert.equal(status, 400, query);
      assert.match(body, sentence);
      assert.match(body, /usage: GET \/explain\?from=/);
    }
    const { code, text } = await culvert('--from', 'demo/client', '--to', 'nothing:80');
    assert.deepEqual([code, text.split('\n').length], [1, 2]);
    assert.match(text, /^culvert explain: the mesh state has neither a service nor a workload nothing/);
    assert.equal((await culvert('--form', 'x')).code, 2);
    const port = '1';
    const nobody = await run(process.execPath, [cli, 'explain', '--from', 'a', '--to', 'b', '--admin', port]).catch(
      (error: { stderr: string }) => error.stderr,
    );
    assert.match(String(nobody), /the agent does not answer on 127\.0\.0\.1:1 \(.*\): run this on its node/);
  });
});
