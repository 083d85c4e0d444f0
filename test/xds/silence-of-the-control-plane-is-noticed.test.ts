import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ADDRESS } from '../support/istiod.ts';
import { istiod, policy, startClient, uid, workload } from './support/client-under-test.ts';
import { pathTo } from './support/path.ts';
import { inTurns } from './support/turns.ts';

test('a connection whose path has died is given up within 40 s, and the next one goes on with versions', async (t) => {
  const server = await istiod(t);
  server.change({ addresses: { [uid('a')]: workload('a') } });
  const path = await pathTo(t, server);
  t.mock.timers.enable({ apis: ['setTimeout', 'setInterval'] });
  const { client, terminations } = startClient(t, { address: path.address, rootPem: server.rootPem });
  await client.synced;
  await inTurns('acknowledged', () => server.requests.length === 4);

  /** Resolves when the server has read what was sent before, and its answers are here. */
  const roundTrip = async (name: string) => {
    for (const turn of [1, 2]) {
      const [asked, held] = [server.requests.length, client.status().types.Address!.resources];
      server.push({ addresses: { [uid(`${name}-${turn}`)]: workload(`${name}-${turn}`) } });
      await inTurns('pushed', () => client.status().types.Address!.resources > held);
      await inTurns('acknowledged', () => server.requests.length > asked);
    }
  };
  // While it answers, nothing happens.
  for (const ping of ['first', 'second', 'third']) {
    t.mock.timers.tick(20_000);
    await roundTrip(`before-${ping}`);
    t.mock.timers.tick(10_000);
    await roundTrip(`after-${ping}`);
    assert.deepEqual(terminations, []);
  }

  path.dead = true;
  t.mock.timers.tick(30_000); // a ping
  await new Promise(setImmediate);
  assert.ok(client.isConnected());
  t.mock.timers.tick(10_000);
  await inTurns('given up', () => !client.isConnected());
  assert.deepEqual(terminations, ['ConnectionError']);
  assert.match(client.status().lastError!, /does not answer: .*\(no answer to a ping within 10 s\)/);

  path.dead = false;
  t.mock.timers.tick(1000);
  await inTurns('back', () => client.isConnected());
  const { initialVersions } = await server.request(
    'versions',
    ({ stream, typeUrl }) => stream === 1 && typeUrl === ADDRESS,
  );
  assert.equal(Object.keys(initialVersions).length, 13);
});

test('an answer to a ping that came while this thread stood still is not late', async (t) => {
  const server = await istiod(t);
  const path = await pathTo(t, server);
  t.mock.timers.enable({ apis: ['setTimeout', 'setInterval'] });
  const { client, terminations } = startClient(t, { address: path.address, rootPem: server.rootPem });
  await client.synced;
  await inTurns('acknowledged', () => server.requests.length === 4);
  // Nothing else is on its way.
  for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate);
  const passed = path.beforeItIsRead('client', () => t.mock.timers.tick(10_000));
  t.mock.timers.tick(30_000);
  await passed;
  server.push({ policies: { 'demo/p': policy('p') } });
  await inTurns('pushed', () => client.status().types.Authorization!.resources === 1);
  assert.deepEqual(terminations, []);
});

test('a control plane that connects and sends nothing is said to be slow, every half minute, until it does', async (t) => {
  const server = await istiod(t);
  server.answers.addresses = false;
  t.mock.timers.enable({ apis: ['setTimeout', 'setInterval'] });
  const { client, lines } = startClient(t, server);
  await inTurns('connected', () => client.status().types.Authorization!.lastPush !== null);
  const said = () => lines.filter((line) => line.includes('it may be overloaded'));
  assert.deepEqual(said(), []);
  for (let times = 1; times <= 2; times++) {
    t.mock.timers.tick(30_000);
    assert.equal(said().length, times);
    assert.match(said().at(-1)!, /has not sent all of the mesh state yet.* missing="Address"/);
    // Its connection is alive: the ping is answered by the time that a response to what came after it is here.
    for (const turn of [1, 2]) {
      const asked = server.requests.length;
      server.push({ policies: { [`demo/p-${times}-${turn}`]: policy(`p-${times}-${turn}`) } });
      await inTurns('acknowledged', () => server.requests.length > asked);
    }
    assert.ok(client.isConnected());
  }
  server.answers.addresses = true;
  server.endStreams();
  await inTurns('ended', () => !client.isConnected());
  t.mock.timers.tick(1000);
  await client.synced;
  t.mock.timers.tick(30_000);
  assert.equal(said().length, 2);
});
