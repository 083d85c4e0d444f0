import assert from 'node:assert/strict';
import { readlinkSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import {
  type AcceptedSocket,
  acceptTcp,
  bindUdp,
  checkCapabilities,
  closeFd,
  connectTcp,
  dupFd,
  type ListenOptions,
  listenTcp,
  OWN_NETNS,
  raiseNofileLimit,
  setSoLinger0,
} from '../../native/netns.ts';
import { assertNothingOpened, openDescriptors } from '../support/descriptors.ts';
import { PATIENCE_MS } from '../support/patience.ts';
import { type Pod, podNetwork } from '../support/pods.ts';
import { plainListener, unmarked } from '../support/tcp.ts';

const PORT = 15001;
const exclusive: ListenOptions = { ...plainListener, reusePort: false };

async function accepted(listenFd: number): Promise<AcceptedSocket> {
  for (const end = performance.now() + PATIENCE_MS; performance.now() < end; await delay(1)) {
    const socket = acceptTcp(listenFd, true);
    if (socket !== null) return socket;
  }
  throw new Error('nobody connected');
}

/** What `ss` says of the sockets of a pod, without the header. */
async function sockets(pod: Pod, ...flags: string[]): Promise<string> {
  return (await pod.run(['ss', '-Htn', ...flags])).stdout;
}

test('a listener is in the pod, and the thread is not', async (t) => {
  const network = await podNetwork(t);
  const pod = await network.addPod('pod');
  const home = readlinkSync('/proc/thread-self/ns/net');
  const { fd } = listenTcp(pod.netns.fd, '::', PORT, exclusive);
  assert.equal(readlinkSync('/proc/thread-self/ns/net'), home);
  assert.match(await sockets(pod, '-l'), /\*:15001/);
  // The same port is free outside.
  closeFd(listenTcp(OWN_NETNS, '127.0.0.1', PORT, exclusive).fd);
  closeFd(fd);
});

test('one listener takes IPv4 and IPv6, and reports canonical addresses', async (t) => {
  const network = await podNetwork(t);
  const server = await network.addPod('server');
  const client = await network.addPod('client');
  const { fd } = listenTcp(server.netns.fd, '::', PORT, plainListener);
  for (const family of ['ipv4', 'ipv6'] as const) {
    const connecting = connectTcp(client.netns.fd, server[family]!, PORT, null, unmarked);
    const socket = await accepted(fd);
    assert.equal(socket.peer.ip, client[family]);
    assert.deepEqual(socket.destination, { ip: server[family], port: PORT });
    closeFd(socket.fd);
    closeFd(connecting.fd);
  }
  closeFd(fd);
});

test('a link-local address carries its interface, and can be dialled as reported', async (t) => {
  const network = await podNetwork(t);
  const server = await network.addPod('server');
  const client = await network.addPod('client');
  const { fd } = listenTcp(server.netns.fd, '::', PORT, plainListener);
  const linkLocal = async (pod: Pod) => {
    for (;;) {
      const { stdout } = await pod.run([
        'ip',
        '-6',
        '-oneline',
        'address',
        'show',
        'dev',
        'eth0',
        'scope',
        'link',
        '-tentative',
      ]);
      const found = /inet6 (fe80::[0-9a-f:]+)/.exec(stdout)?.[1];
      if (found !== undefined) return found;
      await delay(50);
    }
  };
  const [serverIp, clientIp] = [await linkLocal(server), await linkLocal(client)];
  const index = (await client.run(['cat', '/proc/net/if_inet6'])).stdout.match(/ ([0-9a-f]+) 40 20 .* eth0/)![1]!;
  const connecting = connectTcp(client.netns.fd, `${serverIp}%${Number.parseInt(index, 16)}`, PORT, null, unmarked);
  const socket = await accepted(fd);
  assert.match(socket.peer.ip, new RegExp(`^${clientIp}%\\d+$`));
  for (const open of [socket.fd, connecting.fd, fd]) closeFd(open);
});

test('a port taken in one pod is an error there and free in its neighbour', async (t) => {
  const network = await podNetwork(t);
  const taken = await network.addPod('taken');
  const free = await network.addPod('free');
  const first = listenTcp(taken.netns.fd, '::', PORT, exclusive);
  const before = openDescriptors();
  assert.throws(() => listenTcp(taken.netns.fd, '::', PORT, plainListener), {
    code: 'EADDRINUSE',
    message: 'cannot listen on [::]:15001: bind: Address already in use',
  });
  assertNothingOpened(before);
  closeFd(listenTcp(free.netns.fd, '::', PORT, exclusive).fd);
  closeFd(first.fd);
});

test('listeners share a port with SO_REUSEPORT, so that the next agent can start before this one ends', async (t) => {
  const network = await podNetwork(t);
  const pod = await network.addPod('pod');
  const listeners = [1, 2, 3].map(() => listenTcp(pod.netns.fd, '::', PORT, plainListener));
  assert.ok(listeners.every(({ reusePort }) => reusePort));
  for (const { fd } of listeners) closeFd(fd);
});

test('accepted connections inherit mark, keep-alive and user timeout', async (t) => {
  const network = await podNetwork(t);
  const server = await network.addPod('server');
  const client = await network.addPod('client');
  const options = {
    ...plainListener,
    mark: 1337,
    keepalive: { time: 180, interval: 60, retries: 9 },
    userTimeoutMs: 720_000,
  };
  const { fd } = listenTcp(server.netns.fd, '::', PORT, options);
  const connecting = connectTcp(client.netns.fd, server.ipv4, PORT, null, options);
  const socket = await accepted(fd);
  for (const pod of [server, client]) {
    const shown = await sockets(pod, '-oe', 'state', 'established');
    // Of 3 min; the time of Linux is 2 h.
    assert.match(shown, /timer:\(keepalive,([12]min\d+sec|3min),/, pod.name);
    assert.match(shown, /fwmark:0x539/, pod.name);
  }
  for (const open of [socket.fd, connecting.fd, fd]) closeFd(open);
});

test('a source that cannot be taken over is reported, and the connection is made without it', async (t) => {
  const network = await podNetwork(t);
  const server = await network.addPod('server');
  const client = await network.addPod('client');
  const { fd } = listenTcp(server.netns.fd, '::', PORT, plainListener);
  const connecting = connectTcp(client.netns.fd, server.ipv4, PORT, 'fd00::1', unmarked);
  assert.equal(connecting.spoofError, 'EAFNOSUPPORT');
  const socket = await accepted(fd);
  assert.equal(socket.peer.ip, client.ipv4);
  for (const open of [socket.fd, connecting.fd, fd]) closeFd(open);
});

test('a pod that calls itself keeps its own address as the source', async (t) => {
  const network = await podNetwork(t);
  const pod = await network.addPod('pod');
  const { fd } = listenTcp(pod.netns.fd, '::', PORT, plainListener);
  const connecting = connectTcp(pod.netns.fd, pod.ipv4, PORT, pod.ipv4, unmarked);
  assert.equal(connecting.spoofError, null);
  const socket = await accepted(fd);
  assert.equal(socket.peer.ip, pod.ipv4);
  for (const open of [socket.fd, connecting.fd, fd]) closeFd(open);
});

test('one spoofed source connects to many destinations at once', async (t) => {
  const network = await podNetwork(t);
  const pod = await network.addPod('pod');
  // Two ports to choose from: without IP_BIND_ADDRESS_NO_PORT the third connection would find none.
  await pod.run(['sh', '-c', "echo '40000 40001' > /proc/sys/net/ipv4/ip_local_port_range"]);
  const listeners = [9001, 9002, 9003].map((port) => listenTcp(pod.netns.fd, '::', port, plainListener));
  const connections = [9001, 9002, 9003].map((port) => connectTcp(pod.netns.fd, pod.ipv4, port, '192.0.2.9', unmarked));
  assert.deepEqual(
    connections.map(({ spoofError }) => spoofError),
    [null, null, null],
  );
  for (const { fd } of [...listeners, ...connections]) closeFd(fd);
});

test('a reset is a reset', async (t) => {
  const network = await podNetwork(t);
  const server = await network.addPod('server');
  const client = await network.addPod('client');
  const { fd } = listenTcp(server.netns.fd, '::', PORT, plainListener);
  const connecting = connectTcp(client.netns.fd, server.ipv4, PORT, null, unmarked);
  const socket = await accepted(fd);
  setSoLinger0(socket.fd);
  closeFd(socket.fd);
  // An orderly close would leave CLOSE-WAIT here for ever.
  for (const end = performance.now() + PATIENCE_MS; (await sockets(client, '-a')) !== ''; ) {
    assert.ok(performance.now() < end);
  }
  for (const open of [connecting.fd, fd]) closeFd(open);
});

test('UDP sockets are made in the pod', async (t) => {
  const network = await podNetwork(t);
  const pod = await network.addPod('pod');
  const fd = bindUdp(pod.netns.fd, '127.0.0.1', 15053, 1337, true);
  assert.match((await pod.run(['ss', '-Hlnu'])).stdout, /127\.0\.0\.1:15053/);
  closeFd(fd);
});

test('bad arguments are errors, and leave no descriptor', () => {
  const before = openDescriptors();
  for (const ip of [
    '',
    'localhost',
    '10.0.0.1.',
    '10.0.0.256',
    ':::',
    'fe80::1%eth0',
    'fe80::1%',
    '1'.repeat(100),
    '10.0.0.1\0x',
  ]) {
    assert.throws(() => listenTcp(OWN_NETNS, ip, 0, plainListener), { code: 'EINVAL' }, ip);
    assert.throws(() => connectTcp(OWN_NETNS, '127.0.0.1', 1, ip, unmarked), { code: 'EINVAL' }, ip);
  }
  for (const port of [-1, 65536])
    assert.throws(() => listenTcp(OWN_NETNS, '::', port, plainListener), { code: 'EINVAL' });
  assert.throws(() => listenTcp(9999, '::', 0, plainListener), { code: 'EBADF' });
  assert.throws(() => listenTcp(0, '::', 0, plainListener), { code: /EINVAL|EBADF/ });
  assert.throws(() => acceptTcp(9999, true), { code: 'EBADF' });
  assert.throws(() => closeFd(9999), { code: 'EBADF' });
  assert.throws(() => dupFd(9999), { code: 'EBADF' });
  assertNothingOpened(before);
});

test('what the agent needs of the machine is there, or said to be missing', () => {
  checkCapabilities(1337);
  assert.ok(raiseNofileLimit() >= 1024);
});

test('threads make sockets in different pods at the same time', async (t) => {
  const network = await podNetwork(t);
  const pods = await Promise.all(['one', 'two', 'three', 'four'].map((name) => network.addPod(name)));
  const workers = pods.map(
    (pod) =>
      new Worker(new URL('socket-maker.ts', import.meta.url), {
        workerData: { netns: pod.netns.fd, rounds: 2000 },
      }),
  );
  // Each worker listens on the same address in its own pod: one that strayed would find the port taken.
  const results = await Promise.all(
    workers.map(
      (worker) =>
        new Promise((resolve, reject) => {
          worker.on('message', resolve);
          worker.on('error', reject);
        }),
    ),
  );
  assert.deepEqual(
    results,
    pods.map(() => ({ strayed: 0 })),
  );
});
