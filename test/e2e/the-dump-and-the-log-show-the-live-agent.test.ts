import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { meshNetwork, policy, service, startAgent, workload } from '../support/mesh.ts';
import { dial, exchange, fate, listenEcho } from '../support/pod-sockets.ts';

const golden = JSON.parse(readFileSync(new URL('../admin/golden/config_dump.json', import.meta.url), 'utf8'));

test('the config dump and the log show the agent as it is', async (t) => {
  const network = await meshNetwork(t);
  const client = await network.addPod('client');
  const server = await network.addPod('server');
  const outside = await network.addPod('outside');
  const agent = await startAgent({
    network,
    mesh: {
      workloads: [
        workload(client, { locality: { region: 'r1', zone: 'z1', subzone: '' } }),
        workload(server, {
          services: { 'demo/echo.demo.svc.cluster.local': { 80: 8080 } },
          authorizationPolicies: ['demo/no-9000'],
        }),
        workload(outside, { protocol: 'TCP' }),
      ],
      services: [service('echo', '10.96.0.10', { 80: 8080 })],
      policies: [policy('no-9000', 'WorkloadSelector', 'Deny', [{ destinationPorts: [9000] }])],
    },
  });
  for (const pod of [client, server]) await agent.enrol(pod);
  for (const port of [8080, 9000]) await listenEcho(server, port);

  await t.test('the dump has the incumbent’s keys on every level', async () => {
    // Certificates are made when a pod is enrolled.
    const dump = (await agent.until(
      'provided with certificates',
      () => agent.dump(),
      ({ certificates }) => certificates.length === 2 && certificates.every(({ state }) => state === 'Available'),
    )) as unknown as Json;
    assert.deepEqual(Object.keys(dump).sort(), Object.keys(golden).sort());
    // What this mesh leaves at its default is left out, and so may be missing; nothing may be named otherwise.
    const known = (path: string, at: Json, expected: Json, extra: string[] = []) => {
      const allowed = new Set([...Object.keys(expected), ...extra]);
      const unknown = Object.keys(at).filter((key) => !allowed.has(key));
      assert.deepEqual(unknown, [], path);
    };
    const union = (items: Json[]): Json => Object.assign({}, ...items);
    for (const part of ['workloads', 'services', 'policies', 'certificates'] as const) {
      const items = dump[part] as Json[];
      assert.ok(items.length > 0, part);
      const expected = union(golden[part]);
      const optional = part === 'workloads' ? ['locality'] : [];
      for (const item of items) known(part, item, expected, optional);
    }
    for (const key of Object.keys(golden.version).filter((key) => key !== 'rustVersion')) {
      assert.ok(key in (dump.version as Json), key);
    }
    const missing = Object.keys(golden.config).filter((key) => !(key in (dump.config as Json)));
    // Of the DNS proxy, which this agent does not have.
    assert.deepEqual(
      missing.filter((key) => !/dns|clusterDomain|preferedServiceNamespace/i.test(key)),
      [],
    );
    for (const certificate of dump.certificates as Json[]) {
      const [leaf] = certificate.certChain as Json[];
      assert.deepEqual(Object.keys(leaf!).sort(), Object.keys(golden.certificates[0].certChain[0]).sort());
      assert.match(String(leaf!.expirationTime), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
    }
    assert.doesNotMatch(JSON.stringify(dump), /PRIVATE KEY/);
  });

  await t.test('pods, listeners and connections are those there are', async () => {
    const connections = [
      dial(client, '10.96.0.10', 80),
      dial(outside, server.ipv4, 8080),
      dial(client, outside.ipv4, 1),
    ];
    for (const connection of connections.slice(0, 2)) {
      connection.send('x');
      await connection.text(1);
    }
    await fate(connections[2]!);
    const { workloadState } = await agent.dump();
    const [expected] = Object.values(golden.workloadState) as Json[];
    for (const state of Object.values(workloadState)) {
      // The client could not reach the last one: an address without an alternative is no unhealthy endpoint.
      assert.deepEqual(Object.keys(state).sort(), [...Object.keys(expected!), 'listeners'].sort());
      assert.deepEqual(
        state.listeners?.map(({ address, port, worker }) => `${address} ${port} ${worker}`).sort(),
        [15001, 15006, 15008].flatMap((port) => [1, 2].map((worker) => `:: ${port} ${worker}`)).sort(),
      );
      for (const { filters } of state.listeners ?? []) assert.ok(filters.includes('loop-guard'), filters.join());
    }
    const at = (uid: string) => {
      const { inbound, outbound } = workloadState[uid]!.connections!;
      return [...inbound, ...outbound].map(({ originalDst, actualDst, protocol }) => ({
        originalDst,
        actualDst,
        protocol,
      }));
    };
    assert.deepEqual(at('uid-client'), [
      { originalDst: '10.96.0.10:80', actualDst: `${server.ipv4}:15008`, protocol: 'HBONE' },
    ]);
    assert.deepEqual(
      at('uid-server').sort((a, b) => a.protocol.localeCompare(b.protocol)),
      [
        { originalDst: 'echo.demo.svc.cluster.local', actualDst: `${server.ipv4}:8080`, protocol: 'HBONE' },
        { originalDst: null, actualDst: `${server.ipv4}:8080`, protocol: 'TCP' },
      ],
    );
    for (const { socket } of connections) socket.destroy();
  });

  await t.test('the level of the log changes in every thread while connections run', async () => {
    assert.equal((await agent.post('/logging')).body, 'current log level is info\n');
    const quiet = await linesOf(6);
    assert.ok(
      quiet.every((line) => !/\tdebug\t/.test(line)),
      quiet.join('\n'),
    );
    assert.equal(await level('?level=access=debug,rbac=debug'), 200);
    const loud = await linesOf(24);
    const opened = loud.filter((line) => line.includes('\tdebug\taccess\tconnection opened\t'));
    // One for each side of each connection, whichever thread served it.
    assert.equal(opened.length, 48);
    for (const field of ['bytes_sent', 'duration', 'error=']) assert.ok(opened.every((line) => !line.includes(field)));
    assert.ok(loud.some((line) => line.includes('\tdebug\trbac\t')));
    assert.equal(await level('?level=access=off'), 200);
    const silent = agent.here();
    await Promise.all(Array.from({ length: 24 }, () => exchange(dial(client, server.ipv4, 8080), 'hello')));
    await agent.atRest();
    assert.equal(await level('?reset'), 200);
    await linesOf(1);
    assert.equal(
      agent
        .output()
        .slice(silent)
        .match(/\taccess\t/g)?.length,
      2,
    );
    const refused = await agent.post('/logging?level=access=loud');
    assert.equal(refused.status, 400);
    assert.match(refused.body, /^Invalid level provided: .*loud/);
    assert.equal((await agent.get('/logging')).status, 405);
  });

  await t.test('a policy’s decision can be read at level debug, by its name', async () => {
    await level('?level=rbac=debug');
    const before = agent.here();
    assert.equal(await fate(dial(client, server.ipv4, 9000)), 'ECONNRESET');
    const line = await agent.line('deny policy match', before);
    assert.match(line, /\tdebug\trbac\tdeny policy match\tpolicy="demo\/no-9000"$/);
    await level('?reset');
  });

  await t.test('lines that cannot be written would be seen, of each thread', async () => {
    const lost = (await agent.metrics()).filter(({ name }) => name === 'culvert_log_lines_lost_total');
    const counts = lost.map(({ labels, value }) => `${labels.join()} ${value}`).sort();
    assert.deepEqual(counts, ['thread,control 0', 'thread,worker-1 0', 'thread,worker-2 0']);
  });

  await t.test('every line has the form that tools parse', () => {
    for (const line of agent.output().trimEnd().split('\n')) {
      assert.match(
        line,
        /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z\t(error|warn|info|debug)\t[a-z:_]+\t[^\t]+(\t[^\t]+)?$/,
      );
    }
  });

  /** Changes the level; once it is answered, every thread logs by it. */
  async function level(query: string): Promise<number> {
    return (await agent.post(`/logging${query}`)).status;
  }

  /** What is logged while connections are made, one after the other, until their ends are logged. */
  async function linesOf(count: number): Promise<string[]> {
    const before = agent.here();
    for (let i = 0; i < count; i++) await exchange(dial(client, server.ipv4, 8080), 'hello');
    const lines = () => agent.output().slice(before).split('\n');
    await agent.until(
      'done',
      async () => lines().filter((line) => line.includes(' bytes_sent=5 bytes_recv=5 ')).length,
      (complete) => complete === 2 * count,
    );
    return lines();
  }
});

type Json = Record<string, unknown>;
