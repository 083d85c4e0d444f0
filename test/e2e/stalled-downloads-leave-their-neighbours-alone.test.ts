import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { meshNetwork, startAgent, workload } from '../support/mesh.ts';
import { dial, exchange, listen, listenEcho, type Talk } from '../support/pod-sockets.ts';
import { residentMebibytes } from '../support/resident-memory.ts';
import { total } from '../support/samples.ts';

const STALLED = 150;
/** What the agent may hold for all of them together, warming up included (npm run bench -- fairness measures it by itself). */
const MEBIBYTES = 96;
/** What may be left of that once they are gone. */
const LEFT_MEBIBYTES = 32;
const CHUNK = Buffer.alloc(65_536);

test(`${STALLED} downloads whose readers have stopped take a bounded share of memory and stop nobody else`, async (t) => {
  const network = await meshNetwork(t);
  const client = await network.addPod('client');
  const server = await network.addPod('server');
  const agent = await startAgent({ network, mesh: { workloads: [workload(client), workload(server)] } });
  for (const pod of [client, server]) await agent.enrol(pod);
  await listenEcho(server, 7);
  // Sends without end, as fast as it is taken.
  let sent = 0;
  await listen(server, 8080, {
    serve: ({ socket }) => {
      const send = () => {
        do sent += CHUNK.length;
        while (socket.write(CHUNK));
      };
      socket.on('drain', send);
      send();
    },
  });
  const talk = async () => {
    for (let i = 0; i < 10; i++) assert.equal(await exchange(dial(client, server.ipv4, 7), 'hello'), 'hello');
    const bulk = randomBytes(1 << 20).toString('hex');
    assert.ok((await exchange(dial(client, server.ipv4, 7), bulk)) === bulk, 'other bytes came back');
  };
  await talk();

  const before = residentMebibytes(agent.child.pid!);
  const stalled: Talk[] = [];
  for (let i = 0; i < STALLED; i++) stalled.push(dial(client, server.ipv4, 8080));
  // Each has begun; then nobody reads any more.
  for (const each of stalled) await each.read(1);
  await agent.until(
    'at rest',
    async () => {
      const now = sent;
      await new Promise((resolve) => setTimeout(resolve, 300));
      return sent === now;
    },
    (atRest) => atRest,
  );
  // What was only under way is given back while their neighbours go on.
  await agent.until(
    `within ${MEBIBYTES} MiB`,
    async () => {
      await talk();
      return residentMebibytes(agent.child.pid!) - before;
    },
    (held) => held < MEBIBYTES,
  );

  for (const each of stalled) each.reset();
  await agent.until(
    'rid of them',
    async () => total(await agent.metrics(), 'culvert_streams_open'),
    (open) => open === 0,
  );
  await agent.until(
    `${LEFT_MEBIBYTES} MiB from where it was`,
    async () => {
      await talk();
      return residentMebibytes(agent.child.pid!) - before;
    },
    (left) => left < LEFT_MEBIBYTES,
  );
});
