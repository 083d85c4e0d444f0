/**
 * A certificate authority as istiod offers it: gRPC over TLS, tokens, impersonation. Its messages are those of a schema
 * written down here from the specification, its checks of requests are those of the stock openssl.
 */
import { execFileSync } from 'node:child_process';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Metadata, Server, ServerCredentials, type ServerUnaryCall, type sendUnaryData } from '@grpc/grpc-js';
import protobuf from 'protobufjs';
import { certificateToPem } from '../../src/identity/pem.ts';
import { readCaDetails, signWorkloadCertificate } from '../../src/identity/signing.ts';
import { makeIntermediate, makeRoot } from '../identity/openssl.ts';

const schema = protobuf.parse(`
  syntax = "proto3";
  package istio.v1.auth;
  import "google/protobuf/struct.proto";
  message IstioCertificateRequest { string csr = 1; int64 validity_duration = 3; google.protobuf.Struct metadata = 4; }
  message IstioCertificateResponse { repeated string cert_chain = 1; }
`).root;
schema.addJSON(protobuf.common.get('google/protobuf/struct.proto')!.nested!);
const Request = schema.lookupType('istio.v1.auth.IstioCertificateRequest');
const Response = schema.lookupType('istio.v1.auth.IstioCertificateResponse');

/** What the server was sent. */
export interface SeenRequest {
  readonly csr: string;
  readonly identity: string;
  readonly validitySeconds: number;
  readonly headers: Readonly<Record<string, string>>;
}

/** What it does with a request. */
export type Behaviour =
  | { readonly kind: 'issue'; readonly ttlMs?: number; readonly notBefore?: number; readonly delayMs?: number }
  | { readonly kind: 'refuse'; readonly code: number; readonly details: string }
  | { readonly kind: 'say'; readonly chain: (issued: readonly string[]) => readonly string[] }
  | { readonly kind: 'raw'; readonly bytes: Buffer }
  | { readonly kind: 'hang' };

export interface TestCa {
  /** `https://127.0.0.1:<port>` */
  readonly address: string;
  readonly port: number;
  /** The roots that its server certificate is signed by. */
  readonly rootsFile: string;
  readonly seen: readonly SeenRequest[];
  /** What it does from now on; issues certificates of a day at first. */
  behave(behaviour: Behaviour | ((request: SeenRequest) => Behaviour)): void;
  /** Ends its connections, as istiod does every half hour; new ones are accepted. */
  disconnect(): void;
  stop(): void;
}

export interface TestCaOptions {
  /** A folder of its own; one that was used before gives the same CA again. */
  readonly folder: string;
  /** 0 for any */
  readonly port?: number;
  /** Only this token is let in; null lets everybody in. */
  readonly token?: string | null;
}

const DAY_MS = 86_400_000;

/** Makes a root, an intermediate that signs, and a server certificate, in the folder. */
export function makeTestCa(
  folder: string,
  serverNames = 'DNS:istiod.istio-system.svc,DNS:localhost,IP:127.0.0.1',
): void {
  makeRoot(folder, 'root');
  makeIntermediate(folder, 'signer', 'root');
  makeIntermediate(folder, 'server', 'root', { extensions: `subjectAltName=${serverNames}\n` });
}

export async function startTestCa(options: TestCaOptions): Promise<TestCa> {
  const { folder, port = 0, token = null } = options;
  const file = (name: string) => join(folder, name);
  const pem = (name: string) => readFileSync(file(name), 'utf8');
  const seen: SeenRequest[] = [];
  let behaviour: (request: SeenRequest) => Behaviour = () => ({ kind: 'issue' });

  async function sign(request: SeenRequest, ttlMs = DAY_MS, notBefore = Date.now() - 120_000): Promise<string[]> {
    const csr = join(folder, `request-${seen.length}.csr`);
    writeFileSync(csr, request.csr);
    // Fails when the request is not signed by the key in it.
    const key = execFileSync('openssl', ['req', '-in', csr, '-verify', '-noout', '-pubkey'], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const signer = new X509Certificate(pem('signer.crt'));
    const { subject, keyIdentifier } = readCaDetails(signer.raw);
    const spki = Buffer.from(String(key).replace(/-----[^-]+-----|\s/g, ''), 'base64');
    const leaf = await signWorkloadCertificate(
      { key: createPrivateKey(pem('signer.key')), name: subject, keyIdentifier },
      request.identity,
      spki,
      { notBefore, notAfter: Date.now() + ttlMs },
    );
    return [certificateToPem(leaf), signer.toString(), pem('root.crt')];
  }

  async function answer(call: ServerUnaryCall<Buffer, Buffer>): Promise<Buffer> {
    const { csr, metadata, validityDuration } = Request.toObject(Request.decode(call.request), { longs: Number }) as {
      csr: string;
      validityDuration: number;
      metadata?: { fields: { ImpersonatedIdentity?: { stringValue: string } } };
    };
    const headers = call.metadata.getMap() as Record<string, string>;
    if (token !== null && headers.authorization !== `Bearer ${token}`) {
      throw Object.assign(new Error('request authenticate failure'), { code: 16 });
    }
    const request: SeenRequest = {
      csr,
      identity: metadata?.fields.ImpersonatedIdentity?.stringValue ?? '',
      validitySeconds: validityDuration,
      headers,
    };
    seen.push(request);
    const what = behaviour(request);
    const chain = (certChain: readonly string[]) => Buffer.from(Response.encode({ certChain }).finish());
    switch (what.kind) {
      case 'issue':
        if (what.delayMs !== undefined) await new Promise((resolve) => setTimeout(resolve, what.delayMs));
        return chain(await sign(request, what.ttlMs, what.notBefore));
      case 'say':
        return chain(what.chain(await sign(request)));
      case 'raw':
        return what.bytes;
      case 'refuse':
        throw Object.assign(new Error(what.details), { code: what.code });
      case 'hang':
        return new Promise(() => {});
    }
  }

  const server = new Server();
  const identity = (bytes: Buffer) => bytes;
  server.addService(
    {
      CreateCertificate: {
        path: '/istio.v1.auth.IstioCertificateService/CreateCertificate',
        requestStream: false,
        responseStream: false,
        requestSerialize: identity,
        requestDeserialize: identity,
        responseSerialize: identity,
        responseDeserialize: identity,
      },
    },
    {
      CreateCertificate(call: ServerUnaryCall<Buffer, Buffer>, done: sendUnaryData<Buffer>) {
        answer(call).then(
          (message) => done(null, message),
          (error: Error & { code?: number }) =>
            done({ code: error.code ?? 13, details: error.message, metadata: new Metadata() }),
        );
      },
    },
  );
  const credentials = ServerCredentials.createSsl(null, [
    { private_key: readFileSync(file('server.key')), cert_chain: readFileSync(file('server.crt')) },
  ]);
  const bound = await new Promise<number>((resolve, reject) =>
    server.bindAsync(`127.0.0.1:${port}`, credentials, (error, to) => (error === null ? resolve(to) : reject(error))),
  );
  return {
    address: `https://127.0.0.1:${bound}`,
    port: bound,
    rootsFile: file('root.crt'),
    seen,
    behave(next) {
      behaviour = typeof next === 'function' ? next : () => next;
    },
    disconnect: () => server.drain(`127.0.0.1:${bound}`, 0),
    stop: () => server.forceShutdown(),
  };
}

/** A token in JWT form that says until when it is valid; nobody verifies it here. */
export function tokenUntil(ms: number): string {
  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
  return `${part({ alg: 'none' })}.${part({ exp: Math.floor(ms / 1000) })}.signature`;
}
