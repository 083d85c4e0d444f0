/**
 * Many agents in one process, each with a connection of its own, that do no more than to receive and to acknowledge.
 *
 *     agents.ts <port> <file with the root> <how many>
 */
import { readFileSync } from 'node:fs';
import { connect } from 'node:http2';
import { ADDRESS, AUTHORIZATION, encodeRequest, RESPONSE } from '../../src/xds/delta.ts';
import { FieldSplitter } from '../../src/xds/field-splitter.ts';
import { MessageSplitter } from '../../src/xds/grpc-stream.ts';
import type { Report } from './protocol.ts';

const [port, root, count] = process.argv.slice(2) as [string, string, string];
const ca = readFileSync(root);
const NODE = { id: 'ztunnel~1.1.1.1~bench.bench~bench.svc.cluster.local', metadata: {} };
const AT_ONCE = 20;

let bytes = 0;
let received: number[] = [];
let isSynced = false;

function startAgent(): Promise<void> {
  const session = connect(`https://localhost:${port}`, { ca, settings: { initialWindowSize: 1024 * 1024 } });
  session.on('error', fail);
  const stream = session.request({
    ':method': 'POST',
    ':path': '/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources',
    'content-type': 'application/grpc',
    te: 'trailers',
  });
  stream.on('error', fail);
  const send = (message: Uint8Array) => {
    const prefix = Buffer.alloc(5);
    prefix.writeUInt32BE(message.length, 1);
    stream.write(Buffer.concat([prefix, message]));
  };
  for (const typeUrl of [ADDRESS, AUTHORIZATION]) send(encodeRequest({ typeUrl, node: NODE }));
  const missing = new Set<string>([ADDRESS, AUTHORIZATION]);
  const messages = new MessageSplitter();
  let fields = new FieldSplitter();
  let [typeUrl, nonce] = ['', ''];
  return new Promise((resolve) => {
    stream.on('data', (chunk: Buffer) => {
      for (const piece of messages.push(chunk)) {
        if (piece.kind === 'begin') fields = new FieldSplitter();
        else if (piece.kind === 'bytes') {
          bytes += piece.bytes.length;
          fields.add(piece.bytes);
          while (fields.next()) {
            const { field, bytes, start, end } = fields;
            if (field === RESPONSE.typeUrl) typeUrl = bytes.toString('latin1', start, end);
            else if (field === RESPONSE.nonce) nonce = bytes.toString('latin1', start, end);
          }
        } else {
          send(encodeRequest({ typeUrl, nonce }));
          if (isSynced) tellReceived();
          else if (missing.delete(typeUrl) && missing.size === 0) resolve();
        }
      }
    });
  });
}

function tellReceived(): void {
  received.push(Number(process.hrtime.bigint()) / 1e6);
  if (received.length < Number(count)) return;
  tell({ kind: 'received', at: received });
  received = [];
}

let left = Number(count);
await Promise.all(
  Array.from({ length: AT_ONCE }, async () => {
    while (left-- > 0) await startAgent();
  }),
);
isSynced = true;
tell({ kind: 'synced', bytes });
process.on('disconnect', () => process.exit());

function tell(report: Report): void {
  process.send!(report);
}

function fail(error: Error): never {
  process.stderr.write(`${error.message}\n`);
  process.exit(1);
}
