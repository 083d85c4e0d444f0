/**
 * Micro-benchmark of the HTTP/2 codecs: what one frame and one CONNECT block cost a worker, without any socket.
 *
 *     node bench/codec.ts [seconds per row, default 0.5]
 */

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

const seconds = Number(process.argv[2] ?? 0.5);
const slab = new Uint8Array(64 * 1024);
const DATA_LENGTH = 55;
const FRAMES_IN_SLAB = Math.floor(slab.length / (FRAME_HEADER_SIZE + DATA_LENGTH));
/** Different traceparents and peer ports, as every stream brings its own. */
const REQUESTS = 512;

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
