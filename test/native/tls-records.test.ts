import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import type { ChannelLoop } from '../../native/channel.ts';
import { createAuthority } from './authority.ts';
import {
  ALERT,
  APPLICATION,
  forge,
  HANDSHAKE,
  header,
  KEY_UPDATE,
  message,
  type RecordForger,
} from './record-forger.ts';
import { CLIENT_ID, SERVER_ID, startServer } from './secure-side.ts';
import { acceptSides, assertLog, nextTurns, pattern, type Side, testLoop } from './side.ts';

const authority = createAuthority();
const clientMaterial = authority.material({ uris: [CLIENT_ID] });
const serverMaterial = authority.material({ uris: [SERVER_ID] });

const MAX_PLAINTEXT = 1 << 14;
const NEW_SESSION_TICKET = 4;
const UPDATE = message(KEY_UPDATE, Buffer.of(0));
const UPDATE_REQUESTED = message(KEY_UPDATE, Buffer.of(1));

async function securedPeer(loop: ChannelLoop): Promise<{ peer: RecordForger; server: Side }> {
  const { port, close } = acceptSides(loop, (side) => {
    server = side;
    startServer(side, serverMaterial);
  });
  let server!: Side;
  const peer = await forge(port, clientMaterial);
  close();
  await server.told('secured');
  server.log.length = 0;
  return { peer, server };
}

/** The server's answer to what breaks the protocol: one alert, and the end. */
async function assertRefused(peer: RecordForger, server: Side, alert: number, error: string): Promise<void> {
  assert.equal(await server.told('failed'), `failed TLS: tls error: ${error}`);
  assert.deepEqual(await peer.receive(), { type: ALERT, content: Buffer.of(2, alert) });
  server.loop.close(server.channel);
  assert.equal(await peer.receive(), null);
  assert.equal(server.log.length, 1);
}

test('records may be cut anywhere', async (t) => {
  const loop = testLoop(t);
  const { peer, server } = await securedPeer(loop);
  let length = 0;
  for (let cut = 0; ; cut++) {
    const bytes = Buffer.concat([
      peer.record(APPLICATION, pattern(20, length)),
      peer.record(APPLICATION, ''),
      peer.record(APPLICATION, pattern(7, length + 20), 3),
    ]);
    if (cut > bytes.length) break;
    length += 27;
    peer.send(bytes.subarray(0, cut));
    await nextTurns();
    peer.send(bytes.subarray(cut));
    await server.until(() => server.receivedLength === length);
  }
  assert.deepEqual(server.received, pattern(length));
  assertLog(server, []);
});

test('records of every permitted size are opened, one at a time and many at once', async (t) => {
  const loop = testLoop(t);
  const { peer, server } = await securedPeer(loop);
  const sizes = [1, 0, 15, 16, 17, 4095, 4096, MAX_PLAINTEXT - 1, MAX_PLAINTEXT, 0, 1];
  let length = 0;
  const records = sizes.map((size) => {
    const record = peer.record(APPLICATION, pattern(size, length), size < 5000 ? MAX_PLAINTEXT - size : 0);
    length += size;
    return record;
  });
  for (const record of records) peer.send(record);
  // More than the slab holds.
  for (let i = 0; i < 40; i++) {
    peer.send(peer.record(APPLICATION, pattern(MAX_PLAINTEXT, length)));
    length += MAX_PLAINTEXT;
  }
  await server.until(() => server.receivedLength === length);
  assert.deepEqual(server.received, pattern(length));
});

test('what is sealed are whole records, small writes of a turn share one', async (t) => {
  const loop = testLoop(t);
  const { peer, server } = await securedPeer(loop);
  for (let i = 0; i < 100; i++) server.send(pattern(10, i * 10));
  server.send(pattern(4096, 1000));
  server.send(pattern(3 * MAX_PLAINTEXT + 5, 5096));
  const sizes: number[] = [];
  const parts: Buffer[] = [];
  while (Buffer.concat(parts).length < 5096 + 3 * MAX_PLAINTEXT + 5) {
    const { type, content } = (await peer.receive())!;
    assert.equal(type, APPLICATION);
    sizes.push(content.length);
    parts.push(content);
  }
  assert.deepEqual(sizes, [1000, 4096, MAX_PLAINTEXT, MAX_PLAINTEXT, MAX_PLAINTEXT, 5]);
  assert.deepEqual(Buffer.concat(parts), pattern(5096 + 3 * MAX_PLAINTEXT + 5));
});

const UNEXPECTED_MESSAGE = 10;
const BAD_RECORD_MAC = 20;
const RECORD_OVERFLOW = 22;
const ILLEGAL_PARAMETER = 47;
const DECODE_ERROR = 50;

const broken: Record<string, { bytes: (peer: RecordForger) => Uint8Array[]; alert: number; error: string }> = {
  'too much plaintext': {
    bytes: (peer) => [peer.record(APPLICATION, Buffer.alloc(MAX_PLAINTEXT + 1))],
    alert: RECORD_OVERFLOW,
    error: 'oversized record',
  },
  'padding beyond the limit': {
    bytes: (peer) => [peer.record(APPLICATION, Buffer.alloc(MAX_PLAINTEXT), 1)],
    alert: RECORD_OVERFLOW,
    error: 'oversized record',
  },
  'a length beyond the limit': {
    bytes: () => [header(APPLICATION, MAX_PLAINTEXT + 257)],
    alert: RECORD_OVERFLOW,
    error: 'oversized record',
  },
  'only padding': {
    bytes: (peer) => [peer.recordOfInner(Buffer.alloc(100))],
    alert: UNEXPECTED_MESSAGE,
    error: 'a record of padding only',
  },
  'no content at all': {
    bytes: (peer) => [peer.recordOfInner(Buffer.alloc(0))],
    alert: UNEXPECTED_MESSAGE,
    error: 'a record of padding only',
  },
  'a flipped bit': {
    bytes: (peer) => {
      const record = peer.record(APPLICATION, 'hello');
      record[7]! ^= 1;
      return [record];
    },
    alert: BAD_RECORD_MAC,
    error: 'a record is not authentic',
  },
  'a header that is not the authenticated one': {
    bytes: (peer) => {
      const record = peer.record(APPLICATION, 'hello');
      record[2] = 1;
      return [record];
    },
    alert: BAD_RECORD_MAC,
    error: 'a record is not authentic',
  },
  'a record sent twice': {
    bytes: (peer) => {
      const record = peer.record(APPLICATION, '');
      return [record, record];
    },
    alert: BAD_RECORD_MAC,
    error: 'a record is not authentic',
  },
  'less than an authentication tag': {
    bytes: () => [header(APPLICATION, 15), Buffer.alloc(15)],
    alert: BAD_RECORD_MAC,
    error: 'a record is not authentic',
  },
  'an unprotected alert': {
    bytes: () => [header(ALERT, 2), Buffer.of(1, 0)],
    alert: UNEXPECTED_MESSAGE,
    error: 'unprotected record on a protected connection',
  },
  'a late change of cipher spec': {
    bytes: () => [header(20, 1), Buffer.of(1)],
    alert: UNEXPECTED_MESSAGE,
    error: 'unprotected record on a protected connection',
  },
  'something that is no record': {
    bytes: () => [Buffer.from('GET / HTTP/1.1\r\n\r\n')],
    alert: UNEXPECTED_MESSAGE,
    error: 'malformed record',
  },
  'a record of an unknown kind': {
    bytes: (peer) => [peer.record(99, 'hello')],
    alert: UNEXPECTED_MESSAGE,
    error: 'unexpected record type',
  },
  'an empty handshake record': {
    bytes: (peer) => [peer.record(HANDSHAKE, '')],
    alert: UNEXPECTED_MESSAGE,
    error: 'empty handshake record',
  },
  'a ticket for a server': {
    bytes: (peer) => [peer.record(HANDSHAKE, message(NEW_SESSION_TICKET, Buffer.alloc(32)))],
    alert: UNEXPECTED_MESSAGE,
    error: 'unexpected handshake message',
  },
  'a new ClientHello': {
    bytes: (peer) => [peer.record(HANDSHAKE, message(1, Buffer.alloc(64)))],
    alert: UNEXPECTED_MESSAGE,
    error: 'unexpected handshake message',
  },
  'a handshake message that is too long': {
    bytes: (peer) => [peer.record(HANDSHAKE, Buffer.of(NEW_SESSION_TICKET, 1, 0, 1))],
    alert: DECODE_ERROR,
    error: 'oversized handshake message',
  },
  'data inside a handshake message': {
    bytes: (peer) => [peer.record(HANDSHAKE, UPDATE.subarray(0, 3)), peer.record(APPLICATION, 'hello')],
    alert: UNEXPECTED_MESSAGE,
    error: 'data inside a handshake message',
  },
  'a key update with something behind it': {
    bytes: (peer) => [peer.record(HANDSHAKE, Buffer.concat([UPDATE, UPDATE]))],
    alert: UNEXPECTED_MESSAGE,
    error: 'data after a key update',
  },
  'a key update of the wrong length': {
    bytes: (peer) => [peer.record(HANDSHAKE, message(KEY_UPDATE, Buffer.alloc(2)))],
    alert: DECODE_ERROR,
    error: 'malformed key update',
  },
  'a key update that asks for something else': {
    bytes: (peer) => [peer.record(HANDSHAKE, message(KEY_UPDATE, Buffer.of(2)))],
    alert: ILLEGAL_PARAMETER,
    error: 'malformed key update',
  },
  'data under the old key after a key update': {
    bytes: (peer) => [peer.record(HANDSHAKE, UPDATE), peer.record(APPLICATION, 'hello')],
    alert: BAD_RECORD_MAC,
    error: 'a record is not authentic',
  },
  'half an alert': {
    bytes: (peer) => [peer.record(ALERT, Buffer.of(1))],
    alert: DECODE_ERROR,
    error: 'malformed alert',
  },
};

for (const [name, { bytes, alert, error }] of Object.entries(broken)) {
  test(`refused with the alert of the RFC: ${name}`, async (t) => {
    const loop = testLoop(t);
    const { peer, server } = await securedPeer(loop);
    peer.send(...bytes(peer));
    await assertRefused(peer, server, alert, error);
  });
}

test('the peer ends with close_notify; what comes after it is ignored', async (t) => {
  const loop = testLoop(t);
  const { peer, server } = await securedPeer(loop);
  const USER_CANCELED = 90;
  peer.send(
    peer.record(APPLICATION, 'last words'),
    peer.record(ALERT, Buffer.of(1, USER_CANCELED)),
    peer.record(ALERT, Buffer.of(1, 0)),
    peer.record(APPLICATION, 'too late'),
  );
  await server.told('ended');
  assert.equal(server.text, 'last words');
  server.send('answer');
  loop.shutdown(server.channel);
  assert.deepEqual(await peer.receive(), { type: APPLICATION, content: Buffer.from('answer') });
  assert.deepEqual(await peer.receive(), { type: ALERT, content: Buffer.of(1, 0) });
  assert.equal(await peer.receive(), null);
  assertLog(server, ['ended']);
});

test('an alert of the peer is an error, and is not answered', async (t) => {
  const loop = testLoop(t);
  const { peer, server } = await securedPeer(loop);
  const ACCESS_DENIED = 49;
  peer.send(peer.record(APPLICATION, 'data'), peer.record(ALERT, Buffer.of(2, ACCESS_DENIED)));
  assert.equal(await server.told('failed'), 'failed TLS: tls error: the peer sent alert access denied');
  assert.equal(server.text, 'data');
  loop.close(server.channel);
  assert.equal(await peer.receive(), null);
});

test('a connection cut between records has ended, one cut inside a record is broken', async (t) => {
  const loop = testLoop(t);
  for (const [cut, told] of [
    [0, 'ended'],
    [1, 'failed TLS: tls error: the peer closed the connection inside a record'],
    [20, 'failed TLS: tls error: the peer closed the connection inside a record'],
  ] as const) {
    const { peer, server } = await securedPeer(loop);
    peer.send(peer.record(APPLICATION, 'whole'), peer.record(APPLICATION, 'cut off').subarray(0, cut));
    peer.socket.end();
    await server.until(() => server.log.length > 0);
    assertLog(server, [told]);
    assert.equal(server.text, 'whole');
    loop.close(server.channel);
  }
});

test('keys are updated when the peer does it, also in pieces', async (t) => {
  const loop = testLoop(t);
  const { peer, server } = await securedPeer(loop);
  for (let generation = 1; generation <= 5; generation++) {
    for (const byte of UPDATE) peer.send(peer.record(HANDSHAKE, Buffer.of(byte)));
    peer.sending.update();
    peer.send(peer.record(APPLICATION, `generation ${generation}`));
    await server.until(() => server.text.endsWith(`${generation}`));
  }
  // Nobody asked for the server's.
  server.send('hello');
  assert.deepEqual(await peer.receive(), { type: APPLICATION, content: Buffer.from('hello') });
});

test('a requested key update precedes the next data, once, however often it was asked for', async (t) => {
  const loop = testLoop(t);
  const { peer, server } = await securedPeer(loop);
  for (let i = 0; i < 1000; i++) {
    peer.send(peer.record(HANDSHAKE, UPDATE_REQUESTED));
    peer.sending.update();
  }
  peer.send(peer.record(APPLICATION, 'question'));
  await server.until(() => server.text === 'question');
  for (const text of ['answer', 'another']) server.send(text.padEnd(5000));
  assert.deepEqual(await peer.receive(), { type: HANDSHAKE, content: UPDATE });
  peer.receiving.update();
  for (const text of ['answer', 'another']) {
    assert.deepEqual(await peer.receive(), { type: APPLICATION, content: Buffer.from(text.padEnd(5000)) });
  }
  assertLog(server, []);
});

test('a key update requested after the own end is followed, not answered', async (t) => {
  const loop = testLoop(t);
  const { peer, server } = await securedPeer(loop);
  loop.shutdown(server.channel);
  assert.deepEqual(await peer.receive(), { type: ALERT, content: Buffer.of(1, 0) });
  assert.equal(await peer.receive(), null);
  peer.send(peer.record(HANDSHAKE, UPDATE_REQUESTED));
  peer.sending.update();
  peer.send(peer.record(APPLICATION, 'still sending'));
  await server.until(() => server.text === 'still sending');
  await nextTurns();
  assertLog(server, []);
});

for (const when of ['secured', 'data'] as const) {
  test(`data that comes with the end of the handshake waits when ${when}() pauses`, async (t) => {
    const loop = testLoop(t);
    const { port } = acceptSides(loop, (side) => {
      server = side;
      side.on = (event) => {
        if (event === 'secured' && when === 'secured') loop.pause(side.channel);
        return 0;
      };
      startServer(side, serverMaterial);
    });
    let server!: Side;
    const peer = await forge(port, clientMaterial, true);
    peer.send(peer.lastFlight, peer.record(APPLICATION, 'first'), peer.record(APPLICATION, ' second').subarray(0, 9));
    await server.told('secured');
    await nextTurns();
    assert.equal(server.text, when === 'secured' ? '' : 'first');
    if (when === 'secured') server.resume();
    await server.until(() => server.text === 'first');
    peer.socket.end();
    await nextTurns();
    assertLog(server, ['secured']);
    server.resume();
    await server.told('failed TLS: tls error: the peer closed the connection inside a record');
    assert.deepEqual(server.reads, [5]);
  });
}

test('a paused channel opens nothing', async (t) => {
  const loop = testLoop(t);
  const { peer, server } = await securedPeer(loop);
  loop.pause(server.channel);
  peer.send(peer.record(APPLICATION, 'waits'));
  await nextTurns();
  assert.equal(server.text, '');
  peer.socket.end();
  await once(peer.socket, 'finish');
  await nextTurns();
  assertLog(server, []);
  server.resume();
  await server.told('ended');
  assert.equal(server.text, 'waits');
});
