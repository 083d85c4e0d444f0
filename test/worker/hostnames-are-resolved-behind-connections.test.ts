import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { type TestContext, test } from 'node:test';
import type { OutboundPlan } from '../../src/routing/plan.ts';
import { lookUpHostname } from '../../src/worker/dns-lookup.ts';
import { Hostnames, type HostnamesOptions } from '../../src/worker/hostnames.ts';
import { createPlanner } from '../../src/worker/planner.ts';
import { meshOf, pod, service, workload } from '../state/mesh-builder.ts';

const NAME = 'db.example.com';

function hostnamesUnderTest(t: TestContext, changed: Partial<HostnamesOptions> = {}) {
  const clock = { time: 0 };
  const asked: string[] = [];
  const changes: string[] = [];
  const answers: { ips: string[]; ttl: number; code?: string } = { ips: ['192.0.2.1'], ttl: 30_000 };
  const used = { value: true };
  const hostnames = new Hostnames({
    async lookup(hostname) {
      asked.push(hostname);
      if (answers.code !== undefined) throw Object.assign(new Error('dns'), { code: answers.code });
      return { ...answers };
    },
    now: () => clock.time,
    isUsed: () => used.value,
    onChange: (hostname) => changes.push(hostname),
    ...changed,
  });
  t.after(() => hostnames.close());
  const settled = () => hostnames.resolve(NAME);
  return { hostnames, clock, asked, changes, answers, used, settled };
}

test('those who ask at the same time share one look-up, and its outcome holds', async (t) => {
  const { hostnames, asked } = hostnamesUnderTest(t);
  assert.equal(hostnames.addresses(NAME), null);
  await Promise.all([hostnames.resolve(NAME), hostnames.resolve(NAME)]);
  assert.deepEqual(asked, [NAME]);
  assert.deepEqual(hostnames.addresses(NAME)?.ips, ['192.0.2.1']);
});

test('a name in use is looked up again when its time has passed; a change is told', async (t) => {
  const { hostnames, clock, asked, changes, answers } = hostnamesUnderTest(t);
  await hostnames.resolve(NAME);
  clock.time = 29_999;
  hostnames.tick();
  assert.equal(asked.length, 1);
  clock.time = 30_000;
  hostnames.tick();
  hostnames.tick();
  await new Promise(setImmediate);
  assert.equal(asked.length, 2);
  assert.deepEqual(changes, []);
  answers.ips = ['192.0.2.2', '192.0.2.1'];
  clock.time = 60_000;
  hostnames.tick();
  // Until then the addresses of before are given.
  assert.deepEqual(hostnames.addresses(NAME)?.ips, ['192.0.2.1']);
  await new Promise(setImmediate);
  assert.deepEqual(changes, [NAME]);
  assert.deepEqual(hostnames.addresses(NAME)?.ips, ['192.0.2.1', '192.0.2.2']);
});

test('a name that nobody uses is forgotten when its time has passed', async (t) => {
  const { hostnames, clock, asked, used } = hostnamesUnderTest(t);
  await hostnames.resolve(NAME);
  used.value = false;
  clock.time = 30_000;
  hostnames.tick();
  assert.equal(hostnames.addresses(NAME), null);
  assert.equal(asked.length, 1);
});

test('servers that do not answer leave the addresses of before, a denial does not', async (t) => {
  const { hostnames, changes, answers, settled } = hostnamesUnderTest(t);
  await settled();
  answers.code = 'ETIMEOUT';
  await settled();
  assert.deepEqual(hostnames.addresses(NAME)?.ips, ['192.0.2.1']);
  answers.code = 'ENOTFOUND';
  await settled();
  const { ips, failure } = hostnames.addresses(NAME)!;
  assert.deepEqual([ips, failure], [[], 'ENOTFOUND']);
  assert.deepEqual(changes, [NAME]);
});

test('an answer without a time to live does not lead to a look-up at every turn', async (t) => {
  const { hostnames, clock, asked, answers } = hostnamesUnderTest(t);
  answers.ttl = 0;
  await hostnames.resolve(NAME);
  clock.time = 999;
  hostnames.tick();
  assert.equal(asked.length, 1);
});

test('at most so many names are kept', async (t) => {
  const { hostnames } = hostnamesUnderTest(t);
  for (let i = 0; i < 4100; i++) await hostnames.resolve(`n${i}`);
  assert.equal(hostnames.addresses('n0'), null);
  assert.notEqual(hostnames.addresses('n4099'), null);
});

test('names in use are the last to go, and then with the plans that hold their addresses', async (t) => {
  const used = new Set(['n0', 'n1']);
  const { hostnames, changes } = hostnamesUnderTest(t, { isUsed: (hostname) => used.has(hostname) });
  for (let i = 0; i < 4097; i++) await hostnames.resolve(`n${i}`);
  assert.notEqual(hostnames.addresses('n0'), null);
  assert.notEqual(hostnames.addresses('n1'), null);
  assert.equal(hostnames.addresses('n2'), null);
  assert.deepEqual(changes, []);
  for (let i = 0; i < 4097; i++) used.add(`n${i}`);
  await hostnames.resolve('one more');
  assert.equal(hostnames.addresses('n0'), null);
  assert.notEqual(hostnames.addresses('one more'), null);
  assert.deepEqual(changes, ['n0']);
});

test('a plan waits for a name, and depends on it', async (t) => {
  const { hostnames } = hostnamesUnderTest(t);
  const mesh = meshOf({
    workloads: [
      workload('client', { workloadIps: ['10.0.0.1'] }),
      workload('db', { hostname: NAME, protocol: 'TCP', services: { 'default/web.default.svc.cluster.local': {} } }),
    ],
    services: [service('web', { vips: ['/10.96.0.1'] })],
  });
  const planner = createPlanner(mesh, '', () => pod('client'), null, hostnames);
  const target = { ip: '10.96.0.1', port: 80 };
  await planner({ kind: 'outbound', uid: 'uid-of-client', target, peerIp: '10.0.0.1' }, ({ plan, reads }) => {
    const { groups } = plan as Extract<OutboundPlan, { kind: 'forward' }>;
    assert.deepEqual(groups[0]!.ips, ['192.0.2.1']);
    assert.equal(groups[0]!.hostname, NAME);
    assert.ok(reads.has(`d ${NAME}`));
  });
});

test('a real server is asked for both families, and its shortest time counts', async (t) => {
  const server = createSocket('udp4');
  server.on('message', (query, peer) => server.send(answerTo(query), peer.port, peer.address));
  server.bind(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  const { ips, ttl } = await lookUpHostname(NAME, true, [`127.0.0.1:${server.address().port}`]);
  assert.deepEqual(ips.toSorted(), ['192.0.2.7', '2001:db8::7']);
  assert.equal(ttl, 20_000);
});

/** One A record that holds for 60 s, or one AAAA record that holds for 20 s (RFC 1035 §4.1). */
function answerTo(query: Buffer): Buffer {
  const end = query.indexOf(0, 12) + 5;
  const isIpv6 = query.readUInt16BE(end - 4) === 28;
  const data = isIpv6 ? Buffer.from('20010db8000000000000000000000007', 'hex') : Buffer.from([192, 0, 2, 7]);
  const header = Buffer.from(query.subarray(0, 12));
  header.writeUInt16BE(0x8180, 2);
  header.writeUInt16BE(1, 6);
  header.writeUInt16BE(0, 10);
  const record = Buffer.alloc(12);
  record.writeUInt16BE(0xc00c, 0);
  record.writeUInt16BE(isIpv6 ? 28 : 1, 2);
  record.writeUInt16BE(1, 4);
  record.writeUInt32BE(isIpv6 ? 20 : 60, 6);
  record.writeUInt16BE(data.length, 10);
  return Buffer.concat([header, query.subarray(12, end), record, data]);
}
