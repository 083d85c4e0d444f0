/**
 * Micro-benchmark of HTTP/2: what one frame, one CONNECT block and one stream cost a worker, without any socket, and what
 * an idle stream takes.
 *
 *     node bench/codec.ts [seconds per row, default 0.5]
 */

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { buildBaggage } from '../src/hbone/baggage.ts';
import { connectRequestHeaders, readRequestHead, responseHeaders } from '../src/hbone/connect-headers.ts';
import { buildForwarded } from '../src/hbone/forwarded.ts';
import {
  FRAME_HEADER_SIZE,
  FrameFlag,
  FrameType,
  frameFlags,
  frameLength,
  frameStreamId,
  frameType,
  writeFrameHeader,
  writeHeaders,
  writeWindowUpdate,
} from '../src/hbone/frames.ts';
import { type HeaderField, HpackDecoder, HpackEncoder } from '../src/hbone/hpack.ts';
import { createTraceparentSource } from '../src/hbone/traceparent.ts';
import { connectionPair, Reader } from './harness/connection-pair.ts';

const seconds = Number(process.argv[2] ?? 0.5);
const slab = new Uint8Array(64 * 1024);
const DATA_LENGTH = 55;
const FRAMES_IN_SLAB = Math.floor(slab.length / (FRAME_HEADER_SIZE + DATA_LENGTH));
/** Different traceparents and peer ports, as every stream brings its own. */
const REQUESTS = 512;

const CLIENT_STREAMS = 100;
const IDLE_STREAMS = 10_000;

const requests = connectRequests();
const blocks = encodeAll(requests);
const answer = responseHeaders(200, baggage());

let sink = 0;

console.log('codec operation                                   ns/op      ops/s');
measure('read a DATA frame header in a full slab', FRAMES_IN_SLAB, readFrames());
measure('write a DATA frame header', 1000, () => {
  for (let i = 0; i < 1000; i++)
    sink = (sink + writeFrameHeader(slab, (i & 255) * 64, 16384, FrameType.DATA, 0, i)) | 0;
});
measure('write WINDOW_UPDATE', 1000, () => {
  for (let i = 0; i < 1000; i++) sink = (sink + writeWindowUpdate(slab, (i & 255) * 64, i, 65536)) | 0;
});
measure('encode a CONNECT block, tunnel in use', REQUESTS, encodeRequests());
measure('encode and frame a CONNECT block in place', REQUESTS, frameRequests());
measure('encode a CONNECT block, new tunnel', 64, () => {
  for (let i = 0; i < 64; i++)
    sink = (sink + new HpackEncoder({ maxTableSize: 4096 }).encode(requests[i]!, slab, 0)) | 0;
});
measure('encode a 200 block, tunnel in use', 1000, encodeAnswers());
measure('decode a CONNECT block, tunnel in use', REQUESTS, decodeBlocks(false));
measure('decode and judge a CONNECT block', REQUESTS, decodeBlocks(true));
measure('decode a CONNECT block, new tunnel', 64, () => {
  for (let i = 0; i < 64; i++) sink = (sink + newDecoder().decode(blocks[0]!, 0, blocks[0]!.length).length) | 0;
});
measure('connection: receive a DATA frame of 55 octets', FRAMES_IN_SLAB, receiveFrames(DATA_LENGTH));
measure('connection: receive a DATA frame of 16 KB', 3, receiveFrames(16_384));
measure('connection: send a DATA frame of 55 octets', 1000, sendFrames());
measure('stream: open, answer, end; both sides', 100, wholeStreams());
const idle = idleStreamBytes();
console.log(
  `idle stream: ${idle.toFixed(0)} octets of heap on each side, ${CLIENT_STREAMS} in a connection (wanted: 1536)`,
);
console.log(
  `CONNECT block: ${blocks[0]!.length} octets in a new tunnel, ${blocks[1]!.length} after that (${sink % 2})`,
);

/** Runs `batch`, which does `operations` operations, until the time is up; prints the best tenth of a second. */
function measure(name: string, operations: number, batch: () => void): void {
  let best = Number.POSITIVE_INFINITY;
  const end = performance.now() + seconds * 1000;
  while (performance.now() < end) {
    const start = performance.now();
    let batches = 0;
    let elapsed = 0;
    do {
      batch();
      batches++;
      elapsed = performance.now() - start;
    } while (elapsed < Math.min(100, seconds * 200));
    best = Math.min(best, (elapsed * 1e6) / (batches * operations));
  }
  console.log(
    `${name.padEnd(45)} ${best.toFixed(1).padStart(9)} ${Math.round(1e9 / best)
      .toLocaleString('en')
      .padStart(13)}`,
  );
}

function readFrames(): () => void {
  const frames = new Uint8Array(slab.length);
  for (let i = 0; i < FRAMES_IN_SLAB; i++) {
    writeFrameHeader(frames, i * (FRAME_HEADER_SIZE + DATA_LENGTH), DATA_LENGTH, FrameType.DATA, 0, 2 * i + 1);
  }
  return () => {
    for (let at = 0, i = 0; i < FRAMES_IN_SLAB; i++) {
      if (frameType(frames, at) === FrameType.DATA && (frameFlags(frames, at) & FrameFlag.PADDED) === 0) {
        sink = (sink + frameStreamId(frames, at)) | 0;
      }
      at += FRAME_HEADER_SIZE + frameLength(frames, at);
    }
  };
}

function encodeRequests(): () => void {
  const encoder = new HpackEncoder({ maxTableSize: 4096 });
  return () => {
    for (const request of requests) sink = (sink + encoder.encode(request, slab, 0)) | 0;
  };
}

function frameRequests(): () => void {
  const encoder = new HpackEncoder({ maxTableSize: 4096 });
  return () => {
    for (const request of requests) {
      const length = encoder.encode(request, slab, FRAME_HEADER_SIZE);
      sink = (sink + writeHeaders(slab, 0, 1, false, slab, FRAME_HEADER_SIZE, length, 16384)) | 0;
    }
  };
}

function encodeAnswers(): () => void {
  const encoder = new HpackEncoder({ maxTableSize: 4096 });
  return () => {
    for (let i = 0; i < 1000; i++) sink = (sink + encoder.encode(answer, slab, 0)) | 0;
  };
}

function decodeBlocks(judged: boolean): () => void {
  const decoder = newDecoder();
  // Only the first block fills the table; the others can be read over and over.
  decoder.decode(blocks[0]!, 0, blocks[0]!.length);
  return () => {
    for (let i = 1; i < blocks.length; i++) {
      const fields = decoder.decode(blocks[i]!, 0, blocks[i]!.length);
      sink = (sink + fields.length) | 0;
      if (judged && fields !== 'list-too-large') sink = (sink + readRequestHead(fields).kind.length) | 0;
    }
  };
}

function newDecoder(): HpackDecoder {
  return new HpackDecoder({ maxTableSize: 4096, maxHeaderListSize: 65536 });
}

function encodeAll(lists: ReadonlyArray<readonly HeaderField[]>): Uint8Array[] {
  const encoder = new HpackEncoder({ maxTableSize: 4096 });
  return lists.map((list) => slab.slice(0, encoder.encode(list, slab, 0)));
}

function connectRequests(): HeaderField[][] {
  const traceparent = createTraceparentSource();
  return Array.from({ length: REQUESTS }, (_, i) =>
    connectRequestHeaders({
      authority: '10.244.1.17:8080',
      baggage: baggage(),
      forwarded: buildForwarded({ ip: '10.244.2.31', port: 32768 + i }, 'reviews.bookinfo.svc.cluster.local'),
      traceparent: traceparent(),
      forwardedNetwork: null,
    }),
  );
}

function baggage(): string {
  return buildBaggage({
    clusterId: 'Kubernetes',
    namespace: 'bookinfo',
    workloadType: 'deployment',
    workloadName: 'productpage-v1',
    canonicalName: 'productpage',
    canonicalRevision: 'v1',
    region: 'eu-central-1',
    zone: 'eu-central-1a',
  });
}

/** A server reads a slab of DATA, of many streams in turn. */
function receiveFrames(length: number): () => void {
  const { client, server, serverWire, talk } = connectionPair(answer);
  for (let i = 0; i < CLIENT_STREAMS; i++) client.open(requests[i]!, new Reader());
  talk();
  // From here on nobody listens.
  serverWire.peer = null;
  const start = serverWire.scratchSize;
  const count = Math.floor(slab.length / (FRAME_HEADER_SIZE + length));
  let at = start;
  for (let i = 0; i < count; i++) {
    at += writeFrameHeader(serverWire.memory, at, length, FrameType.DATA, 0, 2 * (i % CLIENT_STREAMS) + 1) + length;
  }
  return () => server.receive(start, at - start);
}

function sendFrames(): () => void {
  const { client, server, serverWire, accepted, talk } = connectionPair(answer);
  client.open(requests[0]!, new Reader());
  talk();
  serverWire.peer = null;
  const stream = accepted[0]!;
  const update = new Uint8Array(26);
  const size = writeWindowUpdate(update, 0, 0, 1000 * DATA_LENGTH);
  writeWindowUpdate(update, size, stream.id, 1000 * DATA_LENGTH);
  return () => {
    for (let i = 0; i < 1000; i++) stream.send(FRAME_HEADER_SIZE, DATA_LENGTH);
    serverWire.memory.set(update, serverWire.scratchSize);
    server.receive(serverWire.scratchSize, update.length);
  };
}

function wholeStreams(): () => void {
  const { client, accepted, talk } = connectionPair(answer);
  return () => {
    for (let i = 0; i < 100; i++) {
      const reader = new Reader();
      const stream = client.open(requests[i]!, reader)!;
      reader.stream = stream;
      talk();
      stream.end();
      talk();
    }
    sink = (sink + accepted.length) | 0;
    accepted.length = 0;
  };
}

/** Heap of one side per stream: connections, HPACK tables and handlers included, memory of transports not. */
function idleStreamBytes(): number {
  setFlagsFromString('--expose-gc');
  const collect: () => void = runInNewContext('gc');
  const connections = IDLE_STREAMS / CLIENT_STREAMS;
  const pairs = Array.from({ length: connections }, () => connectionPair(answer));
  collect();
  const before = process.memoryUsage().heapUsed;
  for (const { client, talk } of pairs) {
    for (let i = 0; i < CLIENT_STREAMS; i++) client.open(requests[i]!, new Reader());
    talk();
  }
  collect();
  const bytes = process.memoryUsage().heapUsed - before;
  sink = (sink + pairs.reduce((sum, { server }) => sum + server.streamCount, 0)) | 0;
  return bytes / IDLE_STREAMS / 2;
}
