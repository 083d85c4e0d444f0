/** A stream of delta ADS (spec §9): what is asked on it, and the answers to what comes. */
import { type ControlPlaneServer, readRoots, readToken } from '../control-plane/grpc.ts';
import { STATUS } from '../control-plane/status.ts';
import { CulvertError, messageOf } from '../errors.ts';
import { ADDRESS, AUTHORIZATION, encodeRequest, encodeVersions, type Node, type TypeUrl } from './delta.ts';
import type { Demands } from './demands.ts';
import { type GrpcStream, type MessagePiece, openGrpcStream, type StreamEnd } from './grpc-stream.ts';
import type { Intake, ResponseIntake, TakenIn } from './intake.ts';
import { forgetAlike } from './workload.ts';

/** One connection with one stream, from reading the roots to its end. */
export interface AdsStream {
  /** Asks for resources by key. */
  demand(keys: readonly string[]): void;
  close(): void;
}

export interface AdsStreamOptions {
  readonly server: ControlPlaneServer;
  readonly node: Node;
  readonly intake: Intake;
  /** Null to have all workloads and services. */
  readonly demands: Demands | null;
  opened(): void;
  responded(response: TakenIn): void;
  /** The stream is over, or there was none. `token` is what was sent, to explain an answer with. */
  ended(end: StreamEnd, token: string | null): void;
}

/** Connects and asks for everything, or on demand for what is demanded. Tells `ended` once, but not after `close`. */
export function openAdsStream({
  server,
  node,
  intake,
  demands,
  opened,
  responded,
  ended,
}: AdsStreamOptions): AdsStream {
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
        parts.push(encodeVersions(some.filter((version) => version !== null)));
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
      try {
        while (!closed && work() && performance.now() < until);
      } finally {
        // What was read before a mistake counts as held, so it has to take effect.
        intake.flush();
      }
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
    const error = rejected.size === 0 ? {} : { error: describeRejected(rejected, Number.POSITIVE_INFINITY) };
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
    // A response that breaks off has no end that would do it.
    forgetAlike();
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

/** `name: reason; name: reason`, as the incumbent writes it (spec §9.3). */
export function describeRejected(rejected: ReadonlyMap<string, string>, max: number): string {
  const some = [...rejected].slice(0, max).map(([name, reason]) => `${name}: ${reason}`);
  return `${some.join('; ')}${rejected.size > max ? '; …' : ''}`;
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

const PATH = '/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources';
export const TYPES: readonly TypeUrl[] = [ADDRESS, AUTHORIZATION];

/** How long one turn may work on a response; applying the rest of what was read comes on top. */
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
