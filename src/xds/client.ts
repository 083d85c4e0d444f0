/**
 * The delta ADS client: keeps a stream to the control plane and the mesh state in step with it (spec §9). Loaded only when
 * there is a control plane.
 */

import { createBackoff } from '../backoff.ts';
import { type ControlPlaneServer, readRoots, readToken } from '../control-plane/grpc.ts';
import { STATUS } from '../control-plane/status.ts';
import { CulvertError, messageOf } from '../errors.ts';
import type { Logger } from '../log/logger.ts';
import type { LocalLayer, Overlay } from '../state/local-layer.ts';
import type { MeshStore } from '../state/mesh-state.ts';
import { ADDRESS, AUTHORIZATION, encodeRequest, encodeVersions, type Node, type TypeUrl } from './delta.ts';
import { createDemands, type Demands } from './demands.ts';
import { explain, kindOf, type Termination, terminationOf } from './failure.ts';
import { type GrpcStream, type MessagePiece, openGrpcStream, type StreamEnd } from './grpc-stream.ts';
import { Intake, type ResponseIntake, type TakenIn } from './intake.ts';
import type { KnownResources, Push } from './known.ts';

export interface XdsClientOptions {
  readonly server: ControlPlaneServer;
  readonly node: Node;
  readonly store: MeshStore;
  /** The mesh state of a local file, which comes back where the control plane's goes. */
  readonly underlay: LocalLayer;
  /** Name of this node; '' means that every workload is local. */
  readonly localNode: string;
  /** Ask for workloads and services only when they are needed (demands.ts). */
  readonly onDemand: boolean;
  readonly log: Logger;
  /** Called for what the metrics count. */
  readonly counted: XdsCounters;
  readonly random?: () => number;
}

export interface XdsCounters {
  terminated(reason: Termination): void;
  message(typeUrl: string, bytes: number): void;
}

export interface XdsClient extends Overlay {
  /** Settles once both types were delivered. Never fails. */
  readonly synced: Promise<void>;
  /** Asks for resources by key; null when all of them are held. */
  readonly demand: Demands['ask'] | null;
  isConnected(): boolean;
  types(): readonly Pick<KnownResources, 'typeUrl' | 'size' | 'rejected' | 'lastPush'>[];
  status(): XdsStatus;
  close(): void;
}

/** The connection and what came over it, as `/xds` and the config dump show it. */
export interface XdsStatus {
  readonly address: string;
  readonly connection: 'connecting' | 'connected' | 'waiting';
  /** Since when it is so, ISO 8601, as all times here. */
  readonly since: string;
  /** Streams that ended since the start. */
  readonly terminations: number;
  /** Why the last one did; null when none has. */
  readonly lastError: string | null;
  readonly synced: boolean;
  readonly types: Readonly<Record<string, TypeStatus>>;
}

export interface TypeStatus {
  /** How many are known. */
  readonly resources: number;
  readonly lastPush: (Omit<Push, 'at'> & { readonly at: string }) | null;
  /** Name → why it was not accepted. An older version of it is kept, if there was one. */
  readonly rejected: Readonly<Record<string, string>>;
}

const PATH = '/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources';
const TYPES: readonly TypeUrl[] = [ADDRESS, AUTHORIZATION];

export function startXdsClient(options: XdsClientOptions): XdsClient {
  const { server, node, store, underlay, localNode, onDemand, log, counted, random = Math.random } = options;
  const intake = new Intake({ store, underlay, localNode, now: Date.now, collectNames: onDemand });
  const demands = onDemand ? createDemands((keys) => current?.demand(keys), isUnknown) : null;
  // What is subscribed to by name comes when it is asked for.
  const awaited = onDemand ? ([AUTHORIZATION] as const) : TYPES;
  const types = [intake.addresses, intake.authorizations];
  const backoff = createBackoff({ firstMs: FIRST_DELAY_MS, maxMs: MAX_DELAY_MS, jitter: JITTER, random });
  const synced = Promise.withResolvers<void>();
  const troubles = createTroubleLog(log);
  let isSynced = false;
  let current: Attempt | null = null;
  let retry: NodeJS.Timeout | undefined;
  let patience: NodeJS.Timeout | undefined;
  let closed = false;
  let terminations = 0;
  let lastError: string | null = null;
  let state: XdsStatus['connection'] = 'connecting';
  let since = Date.now();

  function isUnknown(key: string): boolean {
    const slash = key.lastIndexOf('/');
    const [network, ip] = [key.slice(0, slash), key.slice(slash + 1)];
    if (store.workload(key) !== null || store.service(key) !== null) return false;
    return store.workloadByAddress(network, ip) === null && store.serviceByVip(network, ip, '') === null;
  }

  function enter(next: XdsStatus['connection']): void {
    state = next;
    since = Date.now();
  }

  function attempt(): void {
    enter('connecting');
    let brought = false;
    current = startAttempt({
      server,
      node,
      intake,
      demands,
      opened() {
        enter('connected');
        if (!isSynced) patience = setInterval(complainOfSlowness, SLOW_MS);
        log.debug('xds', 'connected to the control plane', { address: server.address });
      },
      responded(response) {
        // Only a stream that brings something shows that the control plane is well again.
        brought = true;
        backoff.reset();
        troubles.over();
        counted.message(response.typeUrl, response.push.bytes);
        if (response.named !== null) demands?.answered(response.named);
        report(response);
        if (isSynced || !intake.isSynced(awaited)) return;
        isSynced = true;
        clearInterval(patience);
        log.info('xds', 'mesh state received', {
          address: server.address,
          addresses: intake.addresses.size,
          policies: intake.authorizations.size,
        });
        synced.resolve();
      },
      ended: (end, token) => ended(end, token, brought),
    });
  }

  function complainOfSlowness(): void {
    log.warn(
      'xds',
      'connected to the control plane, but it has not sent all of the mesh state yet: it may be overloaded',
      {
        address: server.address,
        waiting: `${Math.round((Date.now() - since) / 1000)}s`,
        missing: awaited
          .filter((type) => !intake.isSynced([type]))
          .map(shortName)
          .join(', '),
      },
    );
  }

  /** @param brought whether the stream brought anything before it ended */
  function ended(end: StreamEnd, token: string | null, brought: boolean): void {
    current = null;
    clearInterval(patience);
    if (closed) return;
    const reason = terminationOf(end);
    const sentence = explain(end, server, token, Date.now());
    terminations++;
    lastError = sentence;
    counted.terminated(reason);
    const delay = backoff.next();
    if (reason === 'ConnectionError' || reason === 'Error' || !brought) troubles.met(kindOf(end), sentence, delay);
    else log.debug('xds', 'the control plane ended the stream, another one follows', { reason: sentence });
    enter('waiting');
    retry = setTimeout(attempt, delay);
  }

  function report({ typeUrl, rejected, push }: TakenIn): void {
    const type = shortName(typeUrl);
    if (rejected.size > 0) {
      log.warn('xds', 'resources of the control plane were rejected, older versions of them stay', {
        type,
        rejected: push.rejected,
        reasons: describe(rejected, MAX_LOGGED),
      });
    }
    log.debug('xds', 'received a push', { type, ...push });
  }

  attempt();
  return {
    synced: synced.promise,
    hasAddress: (name) => intake.addresses.has(name),
    hasPolicy: (name) => intake.authorizations.has(name),
    demand: demands?.ask ?? null,
    isConnected: () => state === 'connected',
    types: () => types,
    status: () => ({
      address: server.address,
      connection: state,
      since: new Date(since).toISOString(),
      terminations,
      lastError,
      synced: isSynced,
      types: Object.fromEntries(
        types.map(({ typeUrl, size, lastPush, rejected }) => [
          shortName(typeUrl),
          {
            resources: size,
            lastPush: lastPush && { ...lastPush, at: new Date(lastPush.at).toISOString() },
            rejected: Object.fromEntries(rejected),
          },
        ]),
      ),
    }),
    close() {
      closed = true;
      clearTimeout(retry);
      clearInterval(patience);
      current?.close();
      demands?.close();
      intake.close();
    },
  };
}

interface Attempt {
  /** Asks for resources by key. */
  demand(keys: readonly string[]): void;
  close(): void;
}

interface AttemptOptions {
  readonly server: ControlPlaneServer;
  readonly node: Node;
  readonly intake: Intake;
  /** Null to have all workloads and services. */
  readonly demands: Demands | null;
  opened(): void;
  responded(response: TakenIn): void;
  /** The attempt is over. `token` is what was sent, to explain an answer with. */
  ended(end: StreamEnd, token: string | null): void;
}

/** One connection with one stream, from reading the roots to its end. */
function startAttempt({ server, node, intake, demands, opened, responded, ended }: AttemptOptions): Attempt {
  let stream: GrpcStream | null = null;
  let token: string | null = null;
  let closed = false;
  let subscribed = false;
  const pieces: Piece[] = [];
  let waiting = 0;
  let paused = false;
  let scheduled = false;
  let response: ResponseIntake | null = null;
  let steps: Generator<void, TakenIn | undefined> | null = null;

  async function open(): Promise<void> {
    // Read anew for every connection: both are replaced while the agent runs.
    const roots = await readRoots(server);
    token = await readToken(server.token);
    if (closed) return;
    stream = openGrpcStream({
      server: { address: server.address, roots, altHostname: server.altHostname },
      path: PATH,
      headers: headersOf(server, token),
      handlers: {
        opened() {
          opened();
          void subscribe();
        },
        received: (piece) => queue(piece),
        ended: (end) => queue({ kind: 'ended', end }),
      },
    });
  }

  /** The first request of each type, with what is known already. */
  async function subscribe(): Promise<void> {
    for (const typeUrl of TYPES) {
      const known = intake.known(typeUrl)!;
      // To subscribe to everything and to nothing of it is to subscribe to nothing (spec §9.2).
      const everything = typeUrl === ADDRESS && demands !== null ? ['*'] : [];
      const request = encodeRequest({ typeUrl, node, subscribe: everything, unsubscribe: everything });
      let room = MAX_REQUEST - request.length;
      const versions = known.report((name, version) => {
        room -= VERSION_OVERHEAD + Buffer.byteLength(name) + version.length;
        return room >= 0;
      });
      const parts = [request];
      for (let some = take(versions, VERSIONS_PER_STEP); some.length > 0; some = take(versions, VERSIONS_PER_STEP)) {
        parts.push(encodeVersions(some));
        await nextTurn();
        if (closed) return;
      }
      stream?.send(parts);
    }
    subscribed = true;
    demand(demands?.pending() ?? []);
  }

  function demand(keys: readonly string[]): void {
    if (subscribed && keys.length > 0) stream?.send([encodeRequest({ typeUrl: ADDRESS, subscribe: keys })]);
  }

  function queue(piece: Piece): void {
    if (closed) return;
    pieces.push(piece);
    if (piece.kind === 'bytes') waiting += piece.bytes.length;
    if (!paused && waiting > MAX_WAITING) {
      paused = true;
      stream?.pause();
    }
    schedule();
  }

  function schedule(): void {
    if (scheduled || closed) return;
    scheduled = true;
    setImmediate(run);
  }

  /** Works for a few milliseconds, then lets others have their turn. */
  function run(): void {
    scheduled = false;
    const until = performance.now() + SLICE_MS;
    try {
      while (!closed && work() && performance.now() < until);
      intake.flush();
    } catch (error) {
      finish({ kind: 'status', code: STATUS.INTERNAL, message: messageOf(error) });
    }
    if (closed) return;
    if (paused && waiting <= MAX_WAITING / 2) {
      paused = false;
      stream?.resume();
    }
    if (steps !== null || pieces.length > 0) schedule();
  }

  /** One step; false when there is nothing to do. */
  function work(): boolean {
    if (steps !== null) {
      const { done, value } = steps.next();
      if (done) steps = null;
      if (value) answer(value);
      return true;
    }
    const piece = pieces.shift();
    if (piece === undefined) return false;
    switch (piece.kind) {
      case 'begin':
        response = intake.begin();
        break;
      case 'bytes':
        waiting -= piece.bytes.length;
        steps = response!.push(piece.bytes);
        break;
      case 'end':
        steps = response!.end();
        break;
      case 'ended':
        finish(piece.end);
    }
    return true;
  }

  function answer(taken: TakenIn): void {
    const { typeUrl, nonce, rejected } = taken;
    const error = rejected.size === 0 ? {} : { error: describe(rejected, Number.POSITIVE_INFINITY) };
    stream?.send([encodeRequest({ typeUrl, nonce, ...error })]);
    responded(taken);
  }

  function finish(end: StreamEnd): void {
    if (closed) return;
    close();
    ended(end, token);
  }

  function close(): void {
    closed = true;
    stream?.close();
  }

  open().catch((error: Error) => finish({ kind: 'connection', error }));
  return { demand, close };
}

type Piece = MessagePiece | { readonly kind: 'ended'; readonly end: StreamEnd };

/** @throws CulvertError HEADER_UNUSABLE, without the value */
function headersOf({ headers, prefix, clusterId }: ControlPlaneServer, token: string | null): Record<string, string> {
  const all: Record<string, string> = {};
  for (const { name, value } of headers) {
    if (!/^[\x20-\x7e]*$/.test(value.reveal())) {
      throw new CulvertError(
        'HEADER_UNUSABLE',
        `${prefix}_HEADER_${name.toUpperCase()} has characters that a header cannot carry`,
      );
    }
    all[name] = value.reveal();
  }
  if (token !== null) {
    all.authorization = `Bearer ${token}`;
    all.clusterid = clusterId;
  }
  return all;
}

/** Says what is wrong once, again when it has lasted, and once that it is over. */
function createTroubleLog(log: Logger) {
  /** Kind of trouble → when it was said. */
  const told = new Map<string, number>();
  let began: number | null = null;
  return {
    met(kind: string, sentence: string, delay: number): void {
      const now = performance.now();
      began ??= now;
      for (const [each, at] of told) if (now - at >= REPEAT_MS) told.delete(each);
      if (told.has(kind) || told.size >= MAX_TOLD) return;
      told.set(kind, now);
      log.warn('xds', 'no mesh state from the control plane, what is known stays in force', {
        error: sentence,
        since: `${Math.round((now - began) / 1000)}s`,
        retry: `${Math.round(delay)}ms`,
      });
    },
    over(): void {
      if (began === null) return;
      log.info('xds', 'the control plane is back', { after: `${Math.round((performance.now() - began) / 1000)}s` });
      told.clear();
      began = null;
    },
  };
}

/** `name: reason; name: reason`, as the incumbent writes it (spec §9.3). */
function describe(rejected: ReadonlyMap<string, string>, max: number): string {
  const some = [...rejected].slice(0, max).map(([name, reason]) => `${name}: ${reason}`);
  return `${some.join('; ')}${rejected.size > max ? '; …' : ''}`;
}

/** `Address` of `type.googleapis.com/istio.workload.Address`. */
export function shortName(typeUrl: string): string {
  return typeUrl.slice(typeUrl.lastIndexOf('.') + 1);
}

function take<T>(items: Iterator<T>, count: number): T[] {
  const taken: T[] = [];
  while (taken.length < count) {
    const { done, value } = items.next();
    if (done) break;
    taken.push(value);
  }
  return taken;
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

// The delays of the incumbent (spec §9.5), with a jitter, so that the agents of a cluster do not come all at once.
const FIRST_DELAY_MS = 20;
const MAX_DELAY_MS = 15_000;
const JITTER = 0.5;
/** How long one turn may work on a response; applying what was read comes on top. */
const SLICE_MS = 2;
/** What may have arrived and not been worked on before reading stops. */
const MAX_WAITING = 1024 * 1024;
/**
 * istiod takes requests of 4 MB. An agent that knows more than fits in reports a part of it and has the rest sent again:
 * with all of it, its stream would be refused for ever.
 */
const MAX_REQUEST = 3 * 1024 * 1024;
/** Tags and lengths of one entry. */
const VERSION_OVERHEAD = 12;
const VERSIONS_PER_STEP = 2000;
const MAX_LOGGED = 5;
const REPEAT_MS = 60_000;
/** How long the first delivery may take before it is said that it is missing. */
const SLOW_MS = 30_000;
/** Kinds of trouble that are told in that time. */
const MAX_TOLD = 8;
