import assert from 'node:assert/strict';
import { test } from 'node:test';
import { freePort } from '../support/free-ports.ts';
import { meshNetwork, startAgent, workload } from '../support/mesh.ts';
import { dial, exchange, listenEcho, patiently, type Talk } from '../support/pod-sockets.ts';
import { total } from '../support/samples.ts';

test('a thread that crashes is replaced and gets its pods back, the others go on', async (t) => {
  const network = await meshNetwork(t);
  const client = await network.addPod('client');
  const server = await network.addPod('server');
  const outside = await network.addPod('outside');
  const inspector = await freePort();
  const agent = await startAgent({
    network,
    mesh: { workloads: [workload(client), workload(server), workload(outside, { protocol: 'TCP' })] },
    // The debugger's protocol reaches into threads; the agent itself has no way to be told to crash.
    env: {
      NODE_OPTIONS: `${process.env.NODE_OPTIONS ?? ''} --inspect=127.0.0.1:${inspector}`,
      ZTUNNEL_WORKER_THREADS: '2',
    },
  });
  for (const pod of [client, server]) await agent.enrol(pod);
  await listenEcho(server, 8080);
  const threads = await attachToThreads(inspector);
  // A process waits for its debugger to leave.
  network.defer(() => threads.close());

  // Enough connections for both threads to have some; plain ones, as the kernel spreads them.
  const connections: Talk[] = [];
  for (let i = 0; i < 24; i++) {
    const connection = dial(outside, server.ipv4, 8080);
    await alive(connection);
    connections.push(connection);
  }
  const before = await descriptors();
  const openedBefore = await counted();

  await t.test('connections of the other thread live, those of the crashed one end', async () => {
    const position = agent.here();
    threads.crash('worker-1');
    await agent.line('a data-plane thread failed', position);
    assert.match(await agent.line('a data-plane thread ended and is started again', position), /thread="worker-1"/);
    const ends = connections
      .filter(({ socket }) => !socket.closed)
      .map(({ socket }) => new Promise((resolve) => socket.once('close', resolve)));
    const survivors: Talk[] = [];
    for (const connection of connections) {
      connection.send('ping');
      try {
        assert.equal(await connection.text(4), 'ping');
        survivors.push(connection);
      } catch {
        connection.socket.destroy();
      }
    }
    assert.ok(survivors.length > 0 && survivors.length < connections.length, `${survivors.length} live`);
    for (const { socket } of survivors) socket.destroy();
    await Promise.all(ends);
  });

  await t.test('the new thread serves every pod', async () => {
    await everywhere();
    const answers = await Promise.all(
      Array.from({ length: 40 }, () => exchange(dial(client, server.ipv4, 8080), 'hello')),
    );
    assert.ok(answers.every((answer) => answer === 'hello'));
    assert.equal((await agent.ready()).status, 200);
  });

  await t.test('counters do not go back, and no descriptor is left of the old thread', async () => {
    assert.ok((await counted()) >= openedBefore + 40);
    await agent.until('rid of the old thread’s descriptors', descriptors, (now) => now <= before);
  });

  await t.test('a thread that keeps crashing is started again, less and less often', async () => {
    for (let round = 2; round < 5; round++) {
      const name = `worker-1.${round}`;
      await patiently(`no thread ${name}`, threads.whenThere(name));
      await everywhere();
      const position = agent.here();
      threads.crash(name);
      const line = await agent.line('a data-plane thread ended and is started again', position);
      assert.match(line, new RegExp(`thread="${name}" code=1 delay="${50 * 2 ** (round - 1)}ms"`));
      assert.equal(await anExchange(), 'hello');
    }
  });

  await t.test('an agent without a thread at the moment still stops in order', async () => {
    await patiently('no thread', threads.whenThere('worker-1.5'));
    await everywhere();
    const position = agent.here();
    threads.crash('worker-1.5');
    await agent.line('a data-plane thread ended and is started again', position);
    threads.close();
    assert.equal(await patiently('still running', agent.stop()), 0);
  });

  /** Waits until both threads serve both pods. */
  async function everywhere(): Promise<void> {
    await agent.until(
      'listening in both threads',
      async () => Object.values((await agent.dump()).workloadState),
      (pods) => pods.length === 2 && pods.every(({ listeners }) => new Set(listeners?.map((l) => l.worker)).size === 2),
    );
  }

  async function counted(): Promise<number> {
    return total(await agent.metrics(), 'istio_tcp_connections_opened_total', { reporter: 'destination' });
  }

  /** What there is at rest: connections of the test and tunnels aside. */
  async function descriptors(): Promise<number> {
    const samples = await agent.metrics();
    const sockets = agent.descriptors().get('socket') ?? 0;
    const pods = Object.values((await agent.dump()).workloadState);
    const open = pods.reduce((sum, { connections: c }) => sum + c!.inbound.length + c!.outbound.length, 0);
    return sockets - open - total(samples, 'culvert_tunnels_open');
  }

  /** While one thread is being replaced, the kernel may still give it connections. */
  async function anExchange(): Promise<string> {
    for (;;) {
      try {
        return await exchange(dial(client, server.ipv4, 8080), 'hello');
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  }
});

async function alive(connection: Talk): Promise<void> {
  connection.send('ping');
  assert.equal(await connection.text(4), 'ping');
}

interface Threads {
  /** Throws in a thread, outside of any handler. */
  crash(name: string): void;
  whenThere(name: string): Promise<void>;
  close(): void;
}

/** Speaks to the threads of a process through its inspector (Chrome DevTools Protocol, domain NodeWorker). */
async function attachToThreads(port: number): Promise<Threads> {
  const [target] = (await (await fetch(`http://127.0.0.1:${port}/json/list`)).json()) as {
    webSocketDebuggerUrl: string;
  }[];
  const socket = new WebSocket(target!.webSocketDebuggerUrl);
  await new Promise((resolve, reject) => {
    socket.addEventListener('open', resolve, { once: true });
    socket.addEventListener('error', reject, { once: true });
  });
  const sessions = new Map<string, string>();
  const waiting: (() => void)[] = [];
  socket.addEventListener('message', ({ data }) => {
    const { method, params } = JSON.parse(String(data));
    if (method !== 'NodeWorker.attachedToWorker') return;
    const name = /worker-[\d.]+/.exec(params.workerInfo.title)?.[0];
    if (name !== undefined) sessions.set(name, params.sessionId);
    for (const look of waiting) look();
  });
  socket.send(JSON.stringify({ id: 1, method: 'NodeWorker.enable', params: { waitForDebuggerOnStart: false } }));
  const threads: Threads = {
    crash(name) {
      const expression = `setTimeout(() => { throw new Error('crashed by the test'); }, 0)`;
      const message = JSON.stringify({ id: 1, method: 'Runtime.evaluate', params: { expression } });
      socket.send(
        JSON.stringify({
          id: 2,
          method: 'NodeWorker.sendMessageToWorker',
          params: { sessionId: sessions.get(name), message },
        }),
      );
    },
    whenThere: (name) =>
      new Promise((resolve) => {
        const look = () => sessions.has(name) && resolve();
        waiting.push(look);
        look();
      }),
    close: () => socket.close(),
  };
  await patiently('no threads', threads.whenThere('worker-1'));
  return threads;
}
