import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { Carrier, ChannelLoop } from '../../native/channel.ts';
import { createAuthority } from './authority.ts';
import { CLIENT_ID, SERVER_ID, startClient, startServer } from './secure-side.ts';
import { assertLog, nextTurns, pattern, Side, testLoop } from './side.ts';

const authority = createAuthority();
const clientMaterial = authority.material({ uris: [CLIENT_ID] });
const serverMaterial = authority.material({ uris: [SERVER_ID] });

/** One direction between two memory channels; passes on only what it is allowed to, in pieces. */
class Wire implements Carrier {
  readonly log: string[] = [];
  readonly from: Side;
  to: Side | null = null;
  /** Bytes that may still pass. */
  allowed = Number.POSITIVE_INFINITY;
  /** The most that is taken at a time. */
  piece: number;
  readonly #loop: ChannelLoop;

  constructor(loop: ChannelLoop, piece: number) {
    this.#loop = loop;
    this.piece = piece;
    this.from = new Side(loop);
    this.from.channel = loop.openMemory(this.from, this);
  }

  output(): void {
    this.pass();
  }

  pass(): void {
    while (this.allowed > 0) {
      const taken = this.#loop.take(this.from.channel, 0, Math.min(this.piece, this.allowed));
      if (taken === 0) return;
      this.allowed -= taken;
      this.#loop.deliver(this.to!.channel, 0, taken);
      // What was delivered is the channel's own now.
      this.#loop.memory.fill(0xff, 0, taken);
    }
  }

  outputEnded(): void {
    this.log.push('ended');
    this.#loop.deliverEnd(this.to!.channel);
  }

  gone(reset: boolean): void {
    this.log.push(reset ? 'gone by reset' : 'gone');
  }
}

function wires(t: TestContext, piece = 16_384) {
  const loop = testLoop(t);
  const [client, server] = [new Wire(loop, piece), new Wire(loop, piece)];
  client.to = server.from;
  server.to = client.from;
  return { loop, client, server };
}

async function securedWires(t: TestContext, piece?: number) {
  const under = wires(t, piece);
  startServer(under.server.from, serverMaterial);
  startClient(under.client.from, clientMaterial);
  await Promise.all([under.client.from.told('secured'), under.server.from.told('secured')]);
  for (const { from } of [under.client, under.server]) from.log.length = 0;
  return under;
}

for (const piece of [1, 100, 65_536]) {
  test(`a handshake and bytes both ways, carried ${piece} at a time`, async (t) => {
    const { loop, client, server } = await securedWires(t, piece);
    assert.equal(loop.peer(client.from.channel)?.identity, SERVER_ID);
    assert.equal(loop.peer(server.from.channel)?.identity, CLIENT_ID);
    const length = piece === 1 ? 20_000 : 1_000_000;
    client.from.send(pattern(length));
    server.from.send(pattern(length, 7));
    await Promise.all([
      server.from.until(() => server.from.receivedLength === length),
      client.from.until(() => client.from.receivedLength === length),
    ]);
    assert.ok(server.from.received.equals(pattern(length)));
    assert.ok(client.from.received.equals(pattern(length, 7)));
  });
}

test('what the carrier does not take waits, in order, and the channel tells when it goes on', async (t) => {
  const { loop, client, server } = await securedWires(t);
  client.allowed = 0;
  client.from.send(pattern(500_000));
  const queued = loop.flush(client.from.channel);
  assert.ok(queued > 500_000, `${queued} queued`);
  await nextTurns();
  assert.equal(server.from.receivedLength, 0);
  client.allowed = 100_000;
  client.pass();
  const [, left] = (await client.from.told('drained')).split(' ');
  assert.equal(Number(left), queued - 100_000);
  await server.from.until(() => server.from.receivedLength > 0);
  assert.ok(server.from.receivedLength < 100_000);
  client.allowed = Number.POSITIVE_INFINITY;
  client.pass();
  await client.from.until(() => client.from.log.includes('drained 0'));
  await server.from.until(() => server.from.receivedLength === 500_000);
  assert.ok(server.from.received.equals(pattern(500_000)));
});

test('a reader that pauses gets nothing lost and nothing out of order', async (t) => {
  const { client, server } = await securedWires(t);
  server.from.limit = 0;
  client.from.send(pattern(400_000));
  // Each `resume` brings one read.
  while (server.from.receivedLength < 400_000) {
    const before = server.from.receivedLength;
    server.from.loop.resume(server.from.channel, 1);
    await server.from.until(() => server.from.receivedLength > before);
    await nextTurns();
  }
  assert.ok(server.from.received.equals(pattern(400_000)));
});

test('either direction ends after its last byte, and the other goes on', async (t) => {
  const { loop, client, server } = await securedWires(t);
  client.from.send('last words');
  loop.shutdown(client.from.channel);
  await server.from.told('ended');
  assert.equal(server.from.text, 'last words');
  assert.deepEqual(client.log, ['ended']);
  server.from.send('an answer');
  await client.from.until(() => client.from.text === 'an answer');
  loop.close(server.from.channel);
  await client.from.told('ended');
  loop.close(client.from.channel);
  await nextTurns();
  assert.deepEqual([client.log, server.log], [['ended', 'gone'], ['gone']]);
  assert.equal(loop.size, 0);
});

test('a close waits until the carrier has taken what is queued', async (t) => {
  const { loop, client, server } = await securedWires(t);
  client.allowed = 0;
  client.from.send(pattern(100_000));
  assert.equal(loop.close(client.from.channel), false);
  await nextTurns();
  assert.deepEqual(client.log, []);
  client.allowed = Number.POSITIVE_INFINITY;
  client.pass();
  await client.from.told('closed');
  await server.from.told('ended');
  assert.ok(server.from.received.equals(pattern(100_000)));
  assert.deepEqual(client.log, ['gone']);
});

test('a reset is told to the carrier, and its break to the channel', async (t) => {
  const { loop, client, server } = await securedWires(t);
  client.from.send('unsent');
  loop.reset(client.from.channel);
  await nextTurns();
  assert.deepEqual(client.log, ['gone by reset']);
  assertLog(client.from, []);
  loop.deliverReset(server.from.channel);
  assert.match(
    await server.from.told('failed').catch(({ message }: Error) => message),
    /ECONNRESET: Connection reset by peer/,
  );
  loop.close(server.from.channel);
  await nextTurns();
  assert.deepEqual(server.log, ['gone']);
  assert.equal(loop.size, 0);
});

test('what was delivered before a reset is read first', async (t) => {
  const { loop, client, server } = await securedWires(t);
  client.from.send(pattern(300_000));
  loop.flush(client.from.channel);
  client.pass();
  loop.deliverReset(server.from.channel);
  await server.from.until(() => server.from.log.length > 0);
  assert.ok(server.from.received.equals(pattern(300_000)), `${server.from.receivedLength} bytes`);
  assertLog(server.from, ['failed ECONNRESET: Connection reset by peer (os error 104)']);
});

test('a reset that waits behind bytes is told as soon as the reader pauses', async (t) => {
  const { loop, client, server } = await securedWires(t);
  server.from.limit = 0;
  client.from.send(pattern(300_000));
  loop.flush(client.from.channel);
  client.pass();
  loop.deliverReset(server.from.channel);
  await server.from.until(() => server.from.log.length > 0);
  assert.ok(server.from.receivedLength > 0);
  assertLog(server.from, ['failed ECONNRESET: Connection reset by peer (os error 104)']);
});

test('a channel that is closed before it has read a reset does not wait for its carrier', async (t) => {
  const { loop, client, server } = await securedWires(t);
  server.allowed = 0;
  server.from.send('nobody takes it');
  client.from.send('unread');
  loop.flush(client.from.channel);
  client.pass();
  loop.deliverReset(server.from.channel);
  assert.equal(loop.close(server.from.channel), false);
  await server.from.told('closed');
  assert.deepEqual(server.log, ['gone']);
});

test('an end that was delivered is told before the reset behind it', async (t) => {
  const { loop, client, server } = await securedWires(t);
  server.allowed = 0;
  server.from.send('nobody takes it');
  client.from.send('last words');
  loop.shutdown(client.from.channel);
  loop.flush(client.from.channel);
  client.pass();
  loop.deliverReset(server.from.channel);
  await server.from.until(() => server.from.log.length > 1);
  assert.equal(server.from.text, 'last words');
  assertLog(server.from, ['ended', 'failed ECONNRESET: Connection reset by peer (os error 104)']);
});

test('an end without close_notify before the handshake is done is a failure', async (t) => {
  const { loop, client } = wires(t);
  startClient(client.from, clientMaterial);
  loop.deliverEnd(client.from.channel);
  await client.from.until(() => client.from.log.length > 0);
  assertLog(client.from, ['failed TLS: tls handshake error: the peer closed the connection during the handshake']);
});

test('a peer with another identity is refused, and hears why', async (t) => {
  const { client, server } = wires(t);
  startServer(server.from, serverMaterial);
  startClient(client.from, clientMaterial, ['spiffe://cluster.local/ns/shop/sa/another']);
  await client.from.until(() => client.from.log.length > 0);
  assert.match(client.from.log[0]!, /identity verification error: peer did not present the expected SAN/);
  await server.from.until(() => server.from.log.length > 0);
  assert.match(server.from.log[0]!, /^failed TLS: .*(bad certificate|alert)/);
});

test('what arrives for a channel that is gone, or closing, goes nowhere', async (t) => {
  const { loop, client, server } = await securedWires(t);
  server.allowed = 0;
  server.from.send('unread');
  client.allowed = 0;
  client.from.send(pattern(1000));
  loop.close(client.from.channel);
  server.allowed = Number.POSITIVE_INFINITY;
  server.pass();
  await nextTurns();
  assert.equal(client.from.text, '');
  client.allowed = Number.POSITIVE_INFINITY;
  client.pass();
  await server.from.told('ended');
  loop.deliver(client.from.channel, 0, 100);
  loop.deliverEnd(client.from.channel);
  loop.deliverReset(client.from.channel);
  assert.equal(loop.take(client.from.channel, 0, 100), 0);
});

test('bytes before TLS has started are not taken', (t) => {
  const { client } = wires(t);
  assert.equal(client.from.send('plain'), -1);
});
