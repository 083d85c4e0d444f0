/** The control plane's server with certificates of the test, and the stock gRPC client to call it with. */
import type { TestContext } from 'node:test';
import {
  Client,
  type ClientDuplexStream,
  credentials,
  Metadata,
  type MetadataValue,
  type StatusObject,
} from '@grpc/grpc-js';
import type { GrpcService } from '../../../src/control/grpc/service.ts';
import {
  type ConnectionLimits,
  type ControlServer,
  type ServingCertificate,
  startControlServer,
} from '../../../src/control/server.ts';
import { createLogger } from '../../../src/log/logger.ts';
import { type Authority, createAuthority } from '../../native/authority.ts';
import { PATIENCE_MS } from '../../support/patience.ts';

export interface TestServer {
  readonly server: ControlServer;
  readonly authority: Authority;
  /** `https://localhost:<port>` */
  readonly address: string;
  readonly port: number;
  readonly rootPem: string;
  /** Lines that were logged. */
  readonly lines: readonly string[];
}

export function servingCertificate(authority: Authority, dnsNames = ['localhost']): ServingCertificate {
  const { chainPem, keyPem, rootsPem } = authority.material({ dnsNames });
  return { chainPem, keyPem, clientRootsPem: rootsPem };
}

/** Ends with the test. */
export async function serve(
  t: TestContext,
  services: readonly GrpcService[],
  options: { limits?: Partial<ConnectionLimits>; authority?: Authority; port?: number } = {},
): Promise<TestServer> {
  const { authority = createAuthority(), limits = {}, port = 0 } = options;
  const lines: string[] = [];
  const server = await startControlServer({
    host: '127.0.0.1',
    port,
    certificate: servingCertificate(authority),
    services,
    limits,
    log: createLogger({ format: 'plain', level: 'debug', write: (line) => void lines.push(line) }),
  });
  t.after(() => server.close());
  return {
    server,
    authority,
    address: `https://localhost:${server.port}`,
    port: server.port,
    rootPem: authority.rootPem,
    lines,
  };
}

export interface Closer {
  after(end: () => void): void;
}

/** A client with a connection of its own. */
export function connectClient(
  t: Closer,
  { port, rootPem }: { readonly port: number; readonly rootPem: string },
  certificate?: { readonly keyPem: string; readonly chainPem: string },
): Client {
  const client = new Client(
    `127.0.0.1:${port}`,
    credentials.createSsl(
      Buffer.from(rootPem),
      certificate === undefined ? null : Buffer.from(certificate.keyPem),
      certificate === undefined ? null : Buffer.from(certificate.chainPem),
    ),
    {
      'grpc.ssl_target_name_override': 'localhost',
      'grpc.use_local_subchannel_pool': 1,
      'grpc.enable_retries': 0,
      'grpc.max_receive_message_length': -1,
      'grpc.max_send_message_length': -1,
    },
  );
  t.after(() => client.close());
  return client;
}

export function metadata(values: Readonly<Record<string, MetadataValue>> = {}): Metadata {
  const all = new Metadata();
  for (const [name, value] of Object.entries(values)) all.set(name, value);
  return all;
}

/** Resolves with the answer, rejects with a ServiceError. */
export function call(client: Client, path: string, request: Buffer, headers = metadata()): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(path, identity, identity, request, headers, (error, answer) => {
      if (error === null) resolve(answer!);
      else reject(error);
    });
  });
}

export interface TestStream {
  readonly call: ClientDuplexStream<Buffer, Buffer>;
  readonly ended: Promise<StatusObject>;
  send(message: Buffer): void;
  /** The next message that has not been taken yet. Rejects when the stream ends before. */
  next(): Promise<Buffer>;
  /** Messages that came and have not been taken. */
  readonly waiting: readonly Buffer[];
}

export function openStream(client: Client, path: string, headers = metadata()): TestStream {
  const call = client.makeBidiStreamRequest<Buffer, Buffer>(path, identity, identity, headers);
  const waiting: Buffer[] = [];
  const takers: PromiseWithResolvers<Buffer>[] = [];
  const ended = Promise.withResolvers<StatusObject>();
  let end: StatusObject | null = null;
  call.on('data', (message: Buffer) => {
    const taker = takers.shift();
    if (taker === undefined) waiting.push(message);
    else taker.resolve(message);
  });
  call.on('error', () => {});
  call.on('status', (status) => {
    end = status;
    ended.resolve(status);
    for (const taker of takers.splice(0)) taker.reject(endOf(status));
  });
  return {
    call,
    ended: ended.promise,
    waiting,
    send: (message) => void call.write(message),
    next() {
      const message = waiting.shift();
      if (message !== undefined) return Promise.resolve(message);
      if (end !== null) return Promise.reject(endOf(end));
      const taker = Promise.withResolvers<Buffer>();
      takers.push(taker);
      const timer = setTimeout(() => taker.reject(new Error(`no message within ${PATIENCE_MS} ms`)), PATIENCE_MS);
      return taker.promise.finally(() => clearTimeout(timer));
    },
  };
}

function endOf({ code, details }: StatusObject): Error {
  return new Error(`the stream ended: ${code} ${details}`);
}

function identity(bytes: Buffer): Buffer {
  return bytes;
}
