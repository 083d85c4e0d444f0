import assert from 'node:assert/strict';
import { closeSync, existsSync, mkdtempSync, openSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import {
  connectSeqPacket,
  listenSeqPacket,
  type Packet,
  type SeqPacketConnection,
  type SeqPacketOptions,
} from '../../native/seqpacket.ts';
import { closeDescriptors } from '../../src/netns/handle.ts';
import { assertNothingOpened, openDescriptors } from '../support/descriptors.ts';

/** A connection whose events can be awaited one by one. */
interface Peer extends SeqPacketConnection {
  packet(): Promise<Packet>;
  end(): Promise<string | null>;
}

function peer(connection: SeqPacketConnection): Peer {
  const arrived: Packet[] = [];
  const waiting: ((packet: Packet) => void)[] = [];
  const ended = Promise.withResolvers<string | null>();
  connection.start(
    (packet) => (waiting.shift() ?? ((late) => arrived.push(late)))(packet),
    (code) => ended.resolve(code),
  );
  return {
    ...connection,
    packet: () => {
      const packet = arrived.shift();
      return packet === undefined ? new Promise((resolve) => waiting.push(resolve)) : Promise.resolve(packet);
    },
    end: () => ended.promise,
  };
}

function socketPath(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'zds-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return join(folder, 'socket');
}

async function pair(t: TestContext, options: SeqPacketOptions = {}): Promise<[client: Peer, server: Peer]> {
  const path = socketPath(t);
  const accepted = Promise.withResolvers<SeqPacketConnection>();
  const listener = listenSeqPacket(path, accepted.resolve, () => {}, options);
  const client = peer(connectSeqPacket(path, options));
  const server = peer(await accepted.promise);
  listener.close();
  t.after(() => {
    client.close();
    server.close();
  });
  return [client, server];
}

function whole(packet: Packet): Extract<Packet, { kind: 'whole' }> {
  assert.equal(packet.kind, 'whole');
  return packet as Extract<Packet, { kind: 'whole' }>;
}

test('packets keep their boundaries, in both directions', async (t) => {
  const [client, server] = await pair(t);
  for (const text of ['a', 'bb', 'c'.repeat(1024)]) client.send(Buffer.from(text), []);
  assert.equal(whole(await server.packet()).payload.toString(), 'a');
  assert.equal(whole(await server.packet()).payload.toString(), 'bb');
  assert.equal(whole(await server.packet()).payload.length, 1024);
  server.send(Buffer.from('answer'), []);
  assert.equal(whole(await client.packet()).payload.toString(), 'answer');
});

for (const count of [1, 2, 16]) {
  test(`${count} descriptors arrive as the same files, close-on-exec`, async (t) => {
    const [client, server] = await pair(t);
    const before = openDescriptors();
    const fd = openSync('/etc/passwd', 'r');
    client.send(Buffer.from('x'), new Array(count).fill(fd));
    closeSync(fd);
    const { descriptors } = whole(await server.packet());
    assert.equal(descriptors.length, count);
    const open = openDescriptors();
    assert.deepEqual(
      descriptors.map((received) => open.get(received)),
      new Array(count).fill('/etc/passwd'),
    );
    closeDescriptors(descriptors);
    assertNothingOpened(before);
  });
}

test('a packet that does not fit is reported, and its descriptors are closed', async (t) => {
  const [client, server] = await pair(t);
  const fd = openSync('/dev/null', 'r');
  const before = openDescriptors();
  client.send(Buffer.alloc(1025), [fd]);
  client.send(Buffer.from('next'), []);
  const cut = await server.packet();
  assert.equal(cut.kind, 'truncated');
  assert.equal(cut.payload.length, 1024);
  assert.equal(whole(await server.packet()).payload.toString(), 'next');
  assertNothingOpened(before);
  closeSync(fd);
});

test('the longest packet is a setting', async (t) => {
  const [client, server] = await pair(t, { packetSize: 100_000 });
  client.send(Buffer.alloc(100_000), []);
  assert.equal(whole(await server.packet()).payload.length, 100_000);
});

test('the end of the peer is heard once, after what it sent', async (t) => {
  const [client, server] = await pair(t);
  client.send(Buffer.from('last words'), []);
  client.close();
  assert.equal(whole(await server.packet()).payload.toString(), 'last words');
  assert.equal(await server.end(), null);
  assert.throws(() => server.send(Buffer.from('x'), []), { code: 'EBADF' });
  server.close();
});

test('sending to a peer that has gone is an error, not a signal', async (t) => {
  const [client, server] = await pair(t);
  server.close();
  assert.throws(() => client.send(Buffer.from('x'), []), { code: 'EPIPE' });
});

test('a peer that does not read is an error, and no packet is cut in two', async (t) => {
  const path = socketPath(t);
  // Accepted, and never started.
  const listener = listenSeqPacket(
    path,
    () => {},
    () => {},
  );
  const client = connectSeqPacket(path);
  assert.throws(
    () => {
      for (;;) client.send(Buffer.alloc(1000), []);
    },
    { code: 'EAGAIN' },
  );
  client.close();
  listener.close();
});

test('nothing can be sent that would read as the end', async (t) => {
  const [client] = await pair(t);
  assert.throws(() => client.send(Buffer.alloc(0), []), { code: 'EINVAL' });
});

test('descriptors of a packet that nobody took are closed', async (t) => {
  const path = socketPath(t);
  const fd = openSync('/dev/null', 'r');
  const before = openDescriptors();
  // The connection is never started: the packet stays in the kernel until the socket is closed.
  const accepted = Promise.withResolvers<SeqPacketConnection>();
  const listener = listenSeqPacket(path, accepted.resolve, () => {});
  const client = connectSeqPacket(path);
  client.send(Buffer.from('x'), [fd, fd]);
  (await accepted.promise).close();
  client.close();
  listener.close();
  assertNothingOpened(before);
  closeSync(fd);
});

test('closing from within the callback is the last thing that is heard', async (t) => {
  const path = socketPath(t);
  const seen: string[] = [];
  const accepted = Promise.withResolvers<SeqPacketConnection>();
  const listener = listenSeqPacket(path, accepted.resolve, () => {});
  const client = connectSeqPacket(path);
  client.send(Buffer.from('one'), []);
  client.send(Buffer.from('two'), []);
  client.close();
  const server = await accepted.promise;
  const closed = Promise.withResolvers<void>();
  server.start(
    (packet) => {
      seen.push(packet.payload.toString());
      server.close();
      setImmediate(closed.resolve);
    },
    () => seen.push('end'),
  );
  await closed.promise;
  assert.deepEqual(seen, ['one']);
  listener.close();
});

test('the socket file has its mode from the start, replaces a stale one, and goes with its listener', (t) => {
  const path = socketPath(t);
  const first = listenSeqPacket(
    path,
    () => {},
    () => {},
    { mode: 0o666 },
  );
  assert.equal(statSync(path).mode & 0o777, 0o666);
  const second = listenSeqPacket(
    path,
    () => {},
    () => {},
    { mode: 0o600 },
  );
  assert.equal(statSync(path).mode & 0o777, 0o600);
  first.close();
  assert.ok(existsSync(path), 'the file of the second listener stays');
  second.close();
  assert.ok(!existsSync(path));
});

test('a file that is no socket is not replaced', (t) => {
  const path = socketPath(t);
  writeFileSync(path, 'precious');
  assert.throws(
    () =>
      listenSeqPacket(
        path,
        () => {},
        () => {},
      ),
    { code: 'EADDRINUSE' },
  );
  assert.equal(statSync(path).size, 8);
});

test('paths that cannot be used are errors that say why', (t) => {
  const path = socketPath(t);
  assert.throws(() => connectSeqPacket(path), { code: 'ENOENT' });
  assert.throws(() => connectSeqPacket('/tmp/'.padEnd(108, 'x')), { code: 'ENAMETOOLONG', message: /107 bytes/ });
  assert.throws(() => connectSeqPacket('/tmp/a\0b'), { code: 'EINVAL' });
  listenSeqPacket(
    path,
    () => {},
    () => {},
  ).close();
  assert.throws(() => connectSeqPacket(path), { code: 'ENOENT' });
});

test('hundreds of connections leave no descriptor', async (t) => {
  const path = socketPath(t);
  const fd = openSync('/dev/null', 'r');
  const before = openDescriptors();
  const listener = listenSeqPacket(
    path,
    (connection) => {
      const server = peer(connection);
      server.packet().then((packet) => {
        closeDescriptors(whole(packet).descriptors);
        server.send(Buffer.from('ok'), []);
        server.end().then(() => server.close());
      });
    },
    () => {},
    { backlog: 1000 },
  );
  const clients = Array.from({ length: 300 }, () => peer(connectSeqPacket(path)));
  await Promise.all(
    clients.map(async (client) => {
      client.send(Buffer.from('x'), [fd, fd, fd]);
      await client.packet();
      client.close();
    }),
  );
  listener.close();
  while (openDescriptors().size > before.size) await new Promise((resolve) => setImmediate(resolve));
  assertNothingOpened(before);
  closeSync(fd);
});

test('a thread that ends with open sockets ends cleanly', async (t) => {
  const path = socketPath(t);
  // Idle when it says so: nothing is being delivered when the thread is terminated.
  const source = `
    const { connectSeqPacket, listenSeqPacket } = await import(${JSON.stringify(new URL('../../native/seqpacket.ts', import.meta.url).href)});
    const { parentPort } = await import('node:worker_threads');
    const idle = () => setImmediate(() => parentPort.postMessage('idle'));
    listenSeqPacket(${JSON.stringify(path)}, (connection) => connection.start(idle, () => {}), () => {});
    const client = connectSeqPacket(${JSON.stringify(path)});
    client.start(() => {}, () => {});
    client.send(Buffer.from('x'), []);
  `;
  const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(source)}`));
  await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
  assert.equal(await worker.terminate(), 1);
});
