import assert from 'node:assert/strict';
import { once } from 'node:events';
import http2 from 'node:http2';
import net from 'node:net';
import { duplexPair } from 'node:stream';
import { test } from 'node:test';
import { FrameFlag, FrameType, readUint32, SettingId } from '../../../src/hbone/frames.ts';
import { type HeaderField, HpackDecoder, HpackEncoder } from '../../../src/hbone/hpack.ts';
import { errorCodeName } from '../../../src/hbone/http-error.ts';
import { randomBlock } from './support/block-generator.ts';
import { decodeBlock, encodeBlock } from './support/blocks.ts';
import { type Random, seededRandom } from './support/random.ts';
import { nextBlock, type RawFrame, type RawPeer, rawPeer } from './support/raw-peer.ts';

// node:http2 is nghttp2: an independent implementation of the same RFC on the other end of an in-memory connection.

const TABLE_SIZES = [0, 64, 300, 4096, 65_536];
const STREAMS = 60;

for (const tableSize of TABLE_SIZES) {
  test(`decodes what nghttp2 encodes for a table of ${tableSize}`, { timeout: 60_000 }, async () => {
    const [clientEnd, ourEnd] = duplexPair();
    const peer = rawPeer(ourEnd, true);
    const client = http2.connect('http://peer.test', { createConnection: () => clientEnd });
    client.on('error', () => {});
    const decoder = new HpackDecoder({ maxTableSize: 4096, maxHeaderListSize: 1 << 20 });
    peer.sendSettings([[SettingId.HEADER_TABLE_SIZE, tableSize]]);
    await once(client, 'remoteSettings');
    const random = seededRandom(tableSize);
    for (let i = 0; i < STREAMS; i++) {
      const sent = httpFields(random);
      client.request(asNodeHeaders([...PSEUDO, ...sent])).on('error', () => {});
      const received = await nextBlock(peer, (frame) => {
        if (frame.type === FrameType.SETTINGS && (frame.flags & FrameFlag.ACK) !== 0)
          decoder.setMaxTableSize(tableSize);
        else if (frame.type === FrameType.SETTINGS) peer.sendSettingsAck();
      });
      assert.ok(received !== null, 'connection closed');
      assert.deepEqual(sorted(decodeBlock(decoder, received.block)), sorted([...PSEUDO, ...sent]));
      assert.ok(decoder.tableSize <= tableSize);
    }
    client.destroy();
    peer.close();
  });

  test(`nghttp2 decodes what the encoder writes for a table of ${tableSize}`, { timeout: 60_000 }, async () => {
    const { peer, server, tableSize: announced } = await nghttp2Server({ headerTableSize: tableSize });
    const encoder = new HpackEncoder({ maxTableSize: 65_536 });
    encoder.setMaxTableSize(announced);
    const random = seededRandom(tableSize + 1);
    for (let i = 0; i < STREAMS; i++) {
      const fields = [...PSEUDO, ...httpFields(random)];
      const arrived = once(server, 'stream');
      // Small frames, so that some blocks need CONTINUATION (nghttp2 takes eight of them).
      peer.sendHeaders(2 * i + 1, encodeBlock(encoder, fields), 500);
      const [stream, , , rawHeaders] = (await arrived) as [http2.ServerHttp2Stream, unknown, unknown, string[]];
      stream.on('error', () => {}).close();
      assert.deepEqual(pairs(rawHeaders), fields);
    }
    peer.close();
    server.close();
  });
}

// RFC 7541 §4.2: a size that was announced in the middle; several at a time, of which the smallest counts as well.

test('follows nghttp2 through announced table sizes', { timeout: 60_000 }, async () => {
  const [clientEnd, ourEnd] = duplexPair();
  const peer = rawPeer(ourEnd, true);
  const client = http2.connect('http://peer.test', { createConnection: () => clientEnd });
  client.on('error', () => {});
  const decoder = new HpackDecoder({ maxTableSize: 4096, maxHeaderListSize: 1 << 20 });
  const announced = [4096];
  peer.sendSettings([]);
  await once(client, 'remoteSettings');
  const random = seededRandom(5);
  for (let i = 0; i < 3 * STREAMS; i++) {
    while (random.chance(0.3)) {
      announced.push(random.pick(TABLE_SIZES));
      peer.sendSettings([[SettingId.HEADER_TABLE_SIZE, announced.at(-1)!]]);
    }
    const sent = httpFields(random);
    client.request(asNodeHeaders([...PSEUDO, ...sent])).on('error', () => {});
    const received = await nextBlock(peer, (frame) => {
      if (frame.type !== FrameType.SETTINGS) return;
      if ((frame.flags & FrameFlag.ACK) === 0) peer.sendSettingsAck();
      else decoder.setMaxTableSize(announced.shift()!);
    });
    assert.ok(received !== null, 'connection closed');
    assert.deepEqual(sorted(decodeBlock(decoder, received.block)), sorted([...PSEUDO, ...sent]));
  }
  client.destroy();
  peer.close();
});

test('nghttp2 follows the encoder through announced table sizes', { timeout: 60_000 }, async () => {
  const { peer, server } = await nghttp2Server({});
  const session = await sessionOf(server);
  const encoder = new HpackEncoder({ maxTableSize: 65_536 });
  const random = seededRandom(6);
  for (let i = 0; i < STREAMS; i++) {
    // Node's own limit on what may be unacknowledged is ten.
    for (let changes = random.int(3); changes > 0; changes--) {
      session.settings({ headerTableSize: random.pick(TABLE_SIZES) });
      const frame = await nextSettings(peer);
      for (let at = 0; at < frame.payload.length; at += 6) {
        if (frame.payload[at + 1] === SettingId.HEADER_TABLE_SIZE)
          encoder.setMaxTableSize(readUint32(frame.payload, at + 2));
      }
      peer.sendSettingsAck();
    }
    const fields = [...PSEUDO, ...httpFields(random)];
    const arrived = once(server, 'stream');
    peer.sendHeaders(2 * i + 1, encodeBlock(encoder, fields), 500);
    const [stream, , , rawHeaders] = (await arrived) as [http2.ServerHttp2Stream, unknown, unknown, string[]];
    stream.on('error', () => {}).close();
    assert.deepEqual(pairs(rawHeaders), fields);
  }
  peer.close();
  server.close();
});

const SEQUENCES = process.env.CULVERT_FUZZ === 'long' ? 20_000 : 600;

test(`judges ${SEQUENCES} random sequences of header blocks as nghttp2 does`, {
  timeout: 100 * SEQUENCES,
}, async () => {
  // Where this decoder is stricter on purpose; everything else has to match in both directions.
  const stricter = /more than two table size updates|integer in header block is too large/;
  const verdicts = { accepted: 0, refused: 0, stricter: 0 };
  for (let seed = 0; seed < SEQUENCES; seed++) {
    const random = seededRandom(seed);
    const blocks = Array.from({ length: 1 + random.int(3) }, () => randomBlock(random));
    const ours = ourVerdict(blocks);
    if (stricter.test(ours ?? '')) verdicts.stricter++;
    else {
      const theirs = await nghttp2Verdict(blocks);
      const shown = blocks.map((block) => Buffer.from(block).toString('hex')).join(' ');
      assert.equal(theirs, ours === null ? null : 'COMPRESSION_ERROR', `seed ${seed}: ${shown}: ${ours}`);
      verdicts[ours === null ? 'accepted' : 'refused']++;
    }
  }
  assert.ok(
    verdicts.accepted > SEQUENCES / 6 && verdicts.refused > SEQUENCES / 6 && verdicts.stricter < SEQUENCES / 6,
    JSON.stringify(verdicts),
  );
});

function ourVerdict(blocks: readonly Uint8Array[]): string | null {
  const decoder = new HpackDecoder({ maxTableSize: 4096, maxHeaderListSize: 1 << 20 });
  try {
    for (const block of blocks) decoder.decode(block, 0, block.length);
    return null;
  } catch (error) {
    return (error as Error).message;
  }
}

/** The error with which nghttp2 ends the connection, or null when it still answers a PING behind the blocks. */
async function nghttp2Verdict(blocks: readonly Uint8Array[]): Promise<string | null> {
  const { peer, server } = await nghttp2Server({});
  for (const [i, block] of blocks.entries()) peer.sendHeaders(2 * i + 1, block, 16_384);
  peer.sendPing();
  let verdict: string | null = 'closed without GOAWAY';
  for (let frame = await peer.nextFrame(); frame !== null; frame = await peer.nextFrame()) {
    if (frame.type === FrameType.GOAWAY) verdict = errorCodeName(readUint32(frame.payload, 4));
    else if (frame.type !== FrameType.PING) continue;
    else verdict = null;
    break;
  }
  peer.close();
  server.close();
  return verdict;
}

/** A node:http2 server and its peer behind the exchange of SETTINGS, with the HEADER_TABLE_SIZE that it announced. */
async function nghttp2Server(
  settings: http2.Settings,
): Promise<{ peer: RawPeer; server: http2.Http2Server; tableSize: number }> {
  const server = http2.createServer({ settings, maxHeaderListPairs: 1000 });
  server.on('session', (session) => {
    session.on('error', () => {});
    sessions.set(server, session);
  });
  server.on('stream', (stream) => stream.on('error', () => {}));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const peer = rawPeer(net.connect((server.address() as net.AddressInfo).port, '127.0.0.1'), false);
  peer.sendPreface();
  peer.sendSettings([]);
  return { peer, server, tableSize: await settingsExchanged(peer) };
}

/** The session that is there, or comes. */
async function sessionOf(server: http2.Http2Server): Promise<http2.ServerHttp2Session> {
  return sessions.get(server) ?? ((await once(server, 'session')) as [http2.ServerHttp2Session])[0];
}

const sessions = new WeakMap<http2.Http2Server, http2.ServerHttp2Session>();

async function nextSettings(peer: RawPeer): Promise<RawFrame> {
  for (;;) {
    const frame = await peer.nextFrame();
    assert.ok(frame !== null, 'connection closed');
    if (frame.type === FrameType.SETTINGS && (frame.flags & FrameFlag.ACK) === 0) return frame;
  }
}

async function settingsExchanged(peer: RawPeer): Promise<number> {
  let tableSize = 4096;
  let settings = false;
  let ack = false;
  while (!settings || !ack) {
    const frame = await peer.nextFrame();
    assert.ok(frame !== null, 'connection closed');
    if (frame.type !== FrameType.SETTINGS) continue;
    if ((frame.flags & FrameFlag.ACK) !== 0) {
      ack = true;
      continue;
    }
    for (let at = 0; at < frame.payload.length; at += 6) {
      if (frame.payload[at + 1] === SettingId.HEADER_TABLE_SIZE) tableSize = readUint32(frame.payload, at + 2);
    }
    settings = true;
    peer.sendSettingsAck();
  }
  return tableSize;
}

const PSEUDO: readonly HeaderField[] = [
  [':method', 'GET'],
  [':authority', 'peer.test'],
  [':scheme', 'http'],
  [':path', '/'],
];

/** Fields that HTTP allows, because nghttp2 and node refuse the others; each name once. */
function httpFields(random: Random): HeaderField[] {
  const names = [
    'baggage',
    'forwarded',
    'traceparent',
    'authorization',
    'cookie',
    'x-a',
    'x-b',
    'x-c',
    'accept',
    'range',
  ];
  return names.filter(() => random.chance(0.6)).map((name) => [name, httpValue(random)] as const);
}

function httpValue(random: Random): string {
  if (random.chance(0.4)) return random.pick(['', 'one', 'two', 'gzip, deflate', '0'.repeat(500)]);
  return Buffer.from(random.octets(random.int(60)))
    .toString('latin1')
    .replace(/[^!-~\u00a1-\u00ff]/g, '');
}

function asNodeHeaders(fields: readonly HeaderField[]): http2.OutgoingHttpHeaders {
  const headers: http2.OutgoingHttpHeaders & { [http2.sensitiveHeaders]?: string[] } = Object.fromEntries(fields);
  headers[http2.sensitiveHeaders] = ['x-b'];
  return headers;
}

function pairs(flat: readonly string[]): HeaderField[] {
  return Array.from({ length: flat.length / 2 }, (_, i) => [flat[2 * i]!, flat[2 * i + 1]!] as const);
}

function sorted(fields: readonly HeaderField[]): HeaderField[] {
  return [...fields].sort(([a], [b]) => (a < b ? -1 : 1));
}
