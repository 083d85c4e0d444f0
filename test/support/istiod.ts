/**
 * A control plane that serves mesh state as istiod does (control-01 §7): the stock gRPC server with TLS and tokens, delta
 * ADS with versions, nonces and removals. What it sends is encoded by the stock protobufjs.
 */
import { createHash } from 'node:crypto';
import {
  Metadata,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServiceDefinition,
  type StatusObject,
  status,
} from '@grpc/grpc-js';
import { createAuthority } from '../native/authority.ts';
import { PATIENCE_MS } from './patience.ts';
import { decode, encode, type Json } from './xds-schema.ts';

export const ADDRESS = 'type.googleapis.com/istio.workload.Address';
export const AUTHORIZATION = 'type.googleapis.com/istio.security.Authorization';

export interface SeenRequest {
  readonly typeUrl: string;
  readonly node: { readonly id: string; readonly metadata: Json } | null;
  readonly subscribe: readonly string[];
  readonly unsubscribe: readonly string[];
  readonly initialVersions: Readonly<Record<string, string>>;
  readonly nonce: string;
  readonly error: string | null;
  /** Number of the stream, from 0. */
  readonly stream: number;
}

/** Resources by name; null removes one. */
export type Changes = Readonly<Record<string, Json | Buffer | null>>;

export interface TestIstiod {
  /** `https://localhost:<port>` */
  readonly address: string;
  readonly port: number;
  readonly rootPem: string;
  /** What it was asked, in order. */
  readonly requests: readonly SeenRequest[];
  /** Headers of each stream. */
  readonly headers: readonly Readonly<Record<string, unknown>>[];
  /** Waits for a request that satisfies, of those from number `from` on. */
  request(what: string, satisfies: (request: SeenRequest) => boolean, from?: number): Promise<SeenRequest>;
  /** Changes what there is and sends it to every stream, workloads first. */
  push(changes: { addresses?: Changes; policies?: Changes }): void;
  /** The same, but nobody is told. */
  change(changes: { addresses?: Changes; policies?: Changes }): void;
  /** Sends a response as it is on every stream. */
  sendRaw(response: Json | Buffer): void;
  /** Ends every stream, as istiod does after half an hour or when it stops. */
  endStreams(end?: Partial<StatusObject>): void;
  /** Tells every connection to go away, as istiod does to one of half an hour. */
  goAway(): void;
  /** Refuses new streams with this; null admits them again. */
  refuse(end: Partial<StatusObject> | null): void;
  /** Whether requests are answered at all, and policies. */
  answers: { addresses: boolean; policies: boolean };
  openStreams(): number;
  stop(): Promise<void>;
}

export interface TestIstiodOptions {
  /** 0 for any. */
  readonly port?: number;
  /** Only this token is admitted; null admits everybody. */
  readonly token?: string | null;
  readonly dnsNames?: readonly string[];
  /** Of the server's certificate, in ms from now. */
  readonly notBefore?: number;
  readonly notAfter?: number;
  /** One that was used before keeps the same root. */
  readonly authority?: ReturnType<typeof createAuthority>;
}

type Stream = ServerDuplexStream<Buffer, Buffer>;

interface Open {
  readonly call: Stream;
  readonly number: number;
  readonly subscribed: Set<string>;
  readonly lastNonce: Map<string, string>;
  /** Names asked for one by one; null for all. */
  names: Set<string> | null;
}

const SERVICE: ServiceDefinition = {
  delta: {
    path: '/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources',
    requestStream: true,
    responseStream: true,
    requestSerialize: (bytes: Buffer) => bytes,
    requestDeserialize: (bytes: Buffer) => bytes,
    responseSerialize: (bytes: Buffer) => bytes,
    responseDeserialize: (bytes: Buffer) => bytes,
  },
};

export async function startIstiod(options: TestIstiodOptions = {}): Promise<TestIstiod> {
  const { token = null, dnsNames = ['localhost', 'istiod.istio-system.svc'], authority = createAuthority() } = options;
  const { notBefore = -3_600_000, notAfter = 3_600_000 } = options;
  const material = authority.material({ dnsNames, notBefore, notAfter });
  const resources = new Map([
    [ADDRESS, new Map<string, Buffer>()],
    [AUTHORIZATION, new Map<string, Buffer>()],
  ]);
  const requests: SeenRequest[] = [];
  const headers: Record<string, unknown>[] = [];
  const open = new Set<Open>();
  const watchers = new Set<() => void>();
  const answers = { addresses: true, policies: true };
  let refusal: Partial<StatusObject> | null = null;
  let nonces = 0;

  function respond(to: Open, typeUrl: string, names: Iterable<string>, removed: readonly string[]): void {
    const all = resources.get(typeUrl)!;
    const sent = [...names].filter((name) => all.has(name));
    to.lastNonce.set(typeUrl, `nonce-${++nonces}`);
    to.call.write(
      encode('DeltaDiscoveryResponse', {
        systemVersionInfo: 'test',
        resources: sent.map((name) => ({
          name,
          // Policies carry no version, as istiod's do not.
          version: typeUrl === ADDRESS ? versionOf(all.get(name)!) : '',
          aliases: to.names === null ? [] : aliasesOf(typeUrl, all.get(name)!),
          resource: { typeUrl, value: all.get(name)! },
        })),
        typeUrl,
        nonce: to.lastNonce.get(typeUrl)!,
        removedResources: removed,
      }),
    );
  }

  function answer(to: Open, request: SeenRequest): void {
    const { typeUrl } = request;
    const all = resources.get(typeUrl);
    if (all === undefined || request.error !== null) return;
    if (!(typeUrl === ADDRESS ? answers.addresses : answers.policies)) return;
    const isFirst = !to.subscribed.has(typeUrl);
    to.subscribed.add(typeUrl);
    if (isFirst && typeUrl === ADDRESS && request.unsubscribe.includes('*')) to.names = new Set();
    if (typeUrl === ADDRESS && to.names !== null) {
      answerDemand(to, request, isFirst);
      return;
    }
    if (!isFirst) return;
    const reported = request.initialVersions;
    const changed = [...all.keys()].filter(
      (name) => typeUrl === AUTHORIZATION || reported[name] !== versionOf(all.get(name)!),
    );
    respond(
      to,
      typeUrl,
      changed,
      Object.keys(reported).filter((name) => !all.has(name)),
    );
  }

  /** Names of resources, or `network/ip` of a workload or of a service's address; what is found is sent by its real name. */
  function answerDemand(to: Open, request: SeenRequest, isFirst: boolean): void {
    const all = resources.get(ADDRESS)!;
    const asked = [...request.subscribe, ...Object.keys(request.initialVersions)].filter((name) => name !== '*');
    if (!isFirst && asked.length === 0) return;
    const found = new Set<string>();
    const missing: string[] = [];
    for (const key of asked) {
      const names = all.has(key)
        ? [key]
        : [...all].filter(([, bytes]) => aliasesOf(ADDRESS, bytes).includes(key)).map(([name]) => name);
      if (names.length === 0) missing.push(key);
      for (const name of names) {
        found.add(name);
        // A service comes with its workloads.
        for (const [uid, bytes] of all) if (servicesOf(bytes).includes(name)) found.add(uid);
      }
    }
    for (const name of found) to.names!.add(name);
    respond(to, ADDRESS, found, missing);
  }

  function change(typeUrl: string, changes: Changes = {}): string[] {
    const all = resources.get(typeUrl)!;
    for (const [name, given] of Object.entries(changes)) {
      if (given === null) all.delete(name);
      else if (Buffer.isBuffer(given)) all.set(name, given);
      else all.set(name, encode(typeUrl === ADDRESS ? 'Address' : 'Authorization', given));
    }
    return Object.keys(changes);
  }

  function tell(typeUrl: string, names: readonly string[]): void {
    const all = resources.get(typeUrl)!;
    for (const to of open) {
      if (!to.subscribed.has(typeUrl)) continue;
      const wanted = typeUrl === ADDRESS && to.names !== null ? names.filter((name) => to.names!.has(name)) : names;
      if (wanted.length > 0)
        respond(
          to,
          typeUrl,
          wanted,
          wanted.filter((name) => !all.has(name)),
        );
    }
  }

  function serve(call: Stream): void {
    headers.push(call.metadata.getMap());
    const authorization = call.metadata.get('authorization')[0];
    if (token !== null && authorization !== `Bearer ${token}`) {
      finish(call, { code: status.UNAUTHENTICATED, details: 'authentication failure' });
      return;
    }
    if (refusal !== null) {
      finish(call, refusal);
      return;
    }
    const state: Open = {
      call,
      number: headers.length - 1,
      subscribed: new Set(),
      lastNonce: new Map(),
      names: null,
    };
    open.add(state);
    const gone = () => void open.delete(state);
    call.on('data', (bytes: Buffer) => {
      const request = readRequest(bytes, state.number);
      requests.push(request);
      answer(state, request);
      for (const look of [...watchers]) look();
    });
    call.on('cancelled', gone).on('error', gone).on('close', gone).on('end', gone);
  }

  const server = new Server({ 'grpc.max_receive_message_length': 4 * 1024 * 1024, 'grpc.max_send_message_length': -1 });
  server.addService(SERVICE, { delta: serve });
  const credentials = ServerCredentials.createSsl(null, [
    { cert_chain: Buffer.from(material.chainPem), private_key: Buffer.from(material.keyPem) },
  ]);
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(`127.0.0.1:${options.port ?? 0}`, credentials, (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    );
  });

  return {
    address: `https://localhost:${port}`,
    port,
    rootPem: material.rootsPem,
    requests,
    headers,
    answers,
    request(what, satisfies, from = 0) {
      return new Promise((resolve, reject) => {
        const timer = setTimeout(() => {
          watchers.delete(look);
          reject(new Error(`not asked for ${what}; the last requests: ${JSON.stringify(requests.slice(-5))}`));
        }, PATIENCE_MS);
        const look = () => {
          const found = requests.slice(from).find(satisfies);
          if (found === undefined) return;
          clearTimeout(timer);
          watchers.delete(look);
          resolve(found);
        };
        watchers.add(look);
        look();
      });
    },
    push({ addresses, policies }) {
      // What changed is there before anything is sent; workloads go first (control-01 §7.6).
      const [named, keys] = [change(ADDRESS, addresses), change(AUTHORIZATION, policies)];
      tell(ADDRESS, named);
      tell(AUTHORIZATION, keys);
    },
    change({ addresses, policies }) {
      change(ADDRESS, addresses);
      change(AUTHORIZATION, policies);
    },
    sendRaw(response) {
      const bytes = Buffer.isBuffer(response) ? response : encode('DeltaDiscoveryResponse', response);
      for (const { call } of open) call.write(bytes);
    },
    endStreams(end = { code: status.UNAVAILABLE, details: 'transport is closing' }) {
      for (const { call } of open) finish(call, end);
      open.clear();
    },
    goAway: () => server.drain(`127.0.0.1:${port}`, PATIENCE_MS),
    refuse(end) {
      refusal = end;
    },
    openStreams: () => open.size,
    async stop() {
      server.forceShutdown();
      open.clear();
    },
  };
}

function finish(call: Stream, end: Partial<StatusObject>): void {
  if (end.code === status.OK) call.end(new Metadata());
  else call.emit('error', { code: status.UNKNOWN, details: '', ...end });
}

function readRequest(bytes: Buffer, stream: number): SeenRequest {
  const request = decode('DeltaDiscoveryRequest', bytes) as {
    node: { id: string; metadata: { fields: Record<string, Json> } } | null;
    typeUrl: string;
    resourceNamesSubscribe: string[];
    resourceNamesUnsubscribe: string[];
    initialResourceVersions: Record<string, string>;
    responseNonce: string;
    errorDetail: { message: string } | null;
  };
  return {
    typeUrl: request.typeUrl,
    node: request.node && { id: request.node.id, metadata: plainStruct(request.node.metadata) },
    subscribe: request.resourceNamesSubscribe,
    unsubscribe: request.resourceNamesUnsubscribe,
    initialVersions: request.initialResourceVersions,
    nonce: request.responseNonce,
    error: request.errorDetail?.message ?? null,
    stream,
  };
}

function plainStruct({ fields }: { fields: Record<string, Json> }): Json {
  return Object.fromEntries(Object.entries(fields).map(([key, value]) => [key, plainValue(value)]));
}

function plainValue(value: Json): unknown {
  const { listValue, structValue, stringValue, numberValue, boolValue } = value as Record<string, never>;
  if (listValue) return (listValue as { values: Json[] }).values.map(plainValue);
  if (structValue) return plainStruct(structValue);
  return stringValue ?? numberValue ?? boolValue ?? null;
}

/** A hash of the content, as istiod's versions are. */
export function versionOf(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex').slice(0, 16);
}

function aliasesOf(typeUrl: string, bytes: Buffer): string[] {
  if (typeUrl !== ADDRESS) return [];
  const { workload, service } = decode('Address', bytes) as {
    workload: { network: string; addresses: Buffer[] } | null;
    service: { addresses: { network: string; address: Buffer }[] } | null;
  };
  if (workload) return workload.addresses.map((address) => `${workload.network}/${[...address].join('.')}`);
  return (service?.addresses ?? []).map(({ network, address }) => `${network}/${[...address].join('.')}`);
}

function servicesOf(bytes: Buffer): string[] {
  const { workload } = decode('Address', bytes) as { workload: { services: Json } | null };
  return Object.keys(workload?.services ?? {});
}
