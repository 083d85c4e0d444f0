/**
 * Delta ADS as istiod serves it to node proxies (control-01 §7, node-09 §9.2), from whatever keeps the mesh's resources.
 */
import { availableParallelism } from 'node:os';
import type { Logger } from '../../log/logger.ts';
import type { Registry } from '../../metrics/registry.ts';
import { runInSlices } from '../../slices.ts';
import type { Authenticate, Caller } from '../authentication.ts';
import { type GrpcService, refusal, type ServerStream, type StreamHandlers } from '../grpc/service.ts';
import { createLineQuota } from '../line-quota.ts';
import type { MeshResources } from '../resources.ts';
import { createChangeLog } from './change-log.ts';
import { AdsClient, type ClientContext } from './client.ts';
import { createComposer } from './composer.ts';
import { createDebounce } from './debounce.ts';
import { registerAdsMetrics } from './metrics.ts';
import type { ClientStatus } from './status.ts';
import { createStreamRate } from './stream-rate.ts';

export interface AdsOptions {
  readonly resources: MeshResources;
  readonly authenticate: Authenticate;
  /** Service accounts that may follow the mesh, `namespace/name` (CA_TRUSTED_NODE_ACCOUNTS). */
  readonly trustedAccounts: ReadonlySet<string>;
  /** Whether the resources are complete; streams are refused before. */
  readonly isSynced: () => boolean;
  readonly limits?: Partial<AdsLimits>;
  readonly registry: Registry;
  readonly log: Logger;
}

/** Times in ms. */
export interface AdsLimits {
  /** Changes are sent when it was quiet for so long (`PILOT_DEBOUNCE_AFTER`), */
  readonly debounceMs: number;
  /** or so long after the first of them (`PILOT_DEBOUNCE_MAX`). */
  readonly debounceMaxMs: number;
  /** `PILOT_MAX_REQUESTS_PER_SECOND` */
  readonly streamsPerSecond: number;
  /** How long a new stream waits for its turn before it is refused. */
  readonly patienceMs: number;
  readonly maxClients: number;
  /** Streams of one agent; it has one, and another one while it comes again. */
  readonly streamsPerAgent: number;
  /** How long a message of a client may take to arrive, from its first byte on. */
  readonly messageMs: number;
  /** How long the addresses for a new client wait for it to ask for policies as well. */
  readonly policiesExpectedMs: number;
  /** A stream that has not taken what waits for it for so long is cut off. */
  readonly stalledMs: number;
  /** A client that has not said anything to a response for so long is asked to come again. */
  readonly unansweredMs: number;
}

export interface Ads {
  readonly service: GrpcService;
  clients(): ClientStatus[];
  close(): void;
}

export function createAds(options: AdsOptions): Ads {
  const { resources, authenticate, trustedAccounts, isSynced, registry, log } = options;
  const limits = { ...defaultLimits(), ...options.limits };
  const changes = createChangeLog();
  const composer = createComposer(resources, changes);
  const rate = createStreamRate(limits.streamsPerSecond, limits.patienceMs);
  const refusals = createLineQuota(LINES_PER_SECOND);
  /** Of those who may follow the mesh, in whatever state they are, with whose they are; and how many there are of each. */
  const streams = new Map<ServerStream, string>();
  const streamsByOwner = new Map<string, number>();
  const clients = new Set<AdsClient>();
  let released = 0;

  const metrics = registerAdsMetrics(registry, {
    *versions() {
      for (const { node } of clients) yield node?.version ?? '';
    },
    *unacknowledged() {
      for (const { watches } of clients) {
        for (const { type, delivery } of watches) if (delivery.kind === 'sent') yield type.metric;
      }
    },
  });

  const debounce = createDebounce(limits.debounceMs, limits.debounceMaxMs, () => {
    const firstAt = changes.firstAt(released);
    if (firstAt !== null) metrics.debounce.observe((performance.now() - firstAt) / 1000);
    released = changes.head;
    runInSlices(advanceAll(), trim);
  });
  resources.onChange((change) => {
    if (change.addresses.size === 0 && change.policies.size === 0) return;
    changes.append(change);
    if (clients.size === 0) {
      // Nobody is behind.
      released = changes.head;
      trim();
    } else debounce.touch();
  });

  const context: Omit<ClientContext, 'refused'> = {
    resources,
    composer,
    changes,
    released: () => released,
    policiesExpectedMs: limits.policiesExpectedMs,
    metrics,
    log,
    complaints: createLineQuota(LINES_PER_SECOND),
    joined(client) {
      clients.add(client);
      const { id, node } = client.node!;
      log.info('control::ads', 'a node proxy connected', { id, node, clients: clients.size });
    },
  };

  function* advanceAll(): Generator<void, void> {
    for (const client of clients) {
      client.advance();
      yield;
    }
  }

  /** Lets go of changes that everybody has, and of clients that are so far behind that they had better start over. */
  function trim(): void {
    const { addresses, policies } = resources.counts();
    const limit = changes.startOfLatest(Math.max(MIN_LOG, LOG_SHARE * (addresses + policies)));
    let oldest = Math.min(released, composer.oldestPosition());
    for (const client of clients) {
      const position = client.oldestPosition();
      if (position < limit) {
        log.warn('control::ads', 'a node proxy is too far behind, it is asked to come again', about(client));
        leave(client);
        client.end('too far behind, connect again');
      } else oldest = Math.min(oldest, position);
    }
    changes.forget(Math.max(oldest, limit));
  }

  /** Ends what is dead or stuck. */
  function sweep(): void {
    for (const client of clients) {
      if (client.stalledMs() > limits.stalledMs) {
        metrics.writeTimeouts.add(1);
        log.warn('control::ads', 'a node proxy takes nothing, it is cut off', about(client));
        leave(client);
        client.abort();
      } else if (client.unansweredMs() > limits.unansweredMs) {
        log.warn('control::ads', 'a node proxy does not answer, it is asked to come again', about(client));
        leave(client);
        client.end('no answer to a response');
      }
    }
  }
  const sweeping = setInterval(sweep, Math.min(limits.stalledMs, limits.unansweredMs) / SWEEPS).unref();

  function leave(client: AdsClient): void {
    clients.delete(client);
  }

  function about(client: AdsClient): { id: string; address: string } {
    const { id, address } = client.status();
    return { id, address };
  }

  function takePlace(stream: ServerStream, caller: Caller): void {
    if (streams.size >= limits.maxClients) {
      throw refusal('RESOURCE_EXHAUSTED', `there are ${limits.maxClients} streams already`);
    }
    const owner = ownerOf(stream, caller);
    const count = streamsByOwner.get(owner) ?? 0;
    if (count >= limits.streamsPerAgent) {
      throw refusal('RESOURCE_EXHAUSTED', `${owner} has too many streams already: ${count}`);
    }
    streams.set(stream, owner);
    streamsByOwner.set(owner, count + 1);
  }

  function leavePlace(stream: ServerStream): void {
    const owner = streams.get(stream);
    if (owner === undefined) return;
    streams.delete(stream);
    const left = streamsByOwner.get(owner)! - 1;
    if (left === 0) streamsByOwner.delete(owner);
    else streamsByOwner.set(owner, left);
  }

  function open(stream: ServerStream): StreamHandlers {
    let client: AdsClient | null = null;
    let isClosed = false;
    let silence: NodeJS.Timeout | undefined;
    const refuse = (error: unknown) => {
      const { code = 'INTERNAL', message, reason = '' } = error as { code?: string; message: string; reason?: string };
      metrics.refused.add(1, code);
      // That we are not ready is no news; that nobody can tell whose a token is is.
      const omitted = code === 'UNAVAILABLE' && reason === '' ? null : refusals.take();
      if (omitted !== null) {
        log.warn('control::ads', 'a stream was refused', {
          ...{ address: stream.peer.address, code, message },
          ...(reason === '' ? {} : { reason }),
          ...(omitted === 0 ? {} : { omitted }),
        });
      }
      stream.fail(error);
    };

    async function admit(): Promise<void> {
      if (!isSynced()) throw refusal('UNAVAILABLE', 'server is not ready to serve discovery information');
      // Before it has a place and a turn, so that strangers cannot take those of others.
      const caller = await authenticate(stream.metadata, stream.peer);
      if (isClosed) return;
      const account = `${caller.namespace}/${caller.serviceAccount}`;
      if (!trustedAccounts.has(account)) {
        throw refusal('PERMISSION_DENIED', `${account} may not follow the mesh: it is not in CA_TRUSTED_NODE_ACCOUNTS`);
      }
      takePlace(stream, caller);
      const wait = rate.admit();
      if (wait === null) {
        throw refusal('RESOURCE_EXHAUSTED', 'request rate limit exceeded: PILOT_MAX_REQUESTS_PER_SECOND');
      }
      if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
      if (isClosed) return;
      client = new AdsClient(stream, caller, { ...context, refused: refuse });
      silence = setTimeout(() => {
        if (client?.node === null) refuse(refusal('DEADLINE_EXCEEDED', 'no request on the stream'));
      }, SILENCE_MS);
      stream.resume();
    }

    admit().catch(refuse);
    return {
      message: (bytes) => client?.receive(bytes),
      closed() {
        isClosed = true;
        clearTimeout(silence);
        leavePlace(stream);
        if (client === null) return;
        client.close();
        if (!clients.delete(client)) return;
        log.info('control::ads', 'a node proxy left', { id: client.node?.id ?? '', clients: clients.size });
      },
    };
  }

  return {
    service: {
      name: 'envoy.service.discovery.v3.AggregatedDiscoveryService',
      methods: {
        DeltaAggregatedResources: { kind: 'stream', maxRequest: MAX_REQUEST, messageMs: limits.messageMs, open },
      },
    },
    clients: () => [...clients].map((client) => client.status()),
    close() {
      clearInterval(sweeping);
      debounce.close();
      composer.close();
      for (const client of clients) client.close();
    },
  };
}

/** Not the address where there is a better name: many nodes may be behind one that translates theirs. */
function ownerOf({ peer: { address } }: ServerStream, { namespace, pod, node }: Caller): string {
  if (pod !== null) return `the pod ${namespace}/${pod.name} (${pod.uid})`;
  if (node !== null) return `the agent of node ${node}`;
  return address.slice(0, address.lastIndexOf(':'));
}

function defaultLimits(): AdsLimits {
  return {
    debounceMs: 100,
    debounceMaxMs: 10_000,
    streamsPerSecond: Math.min(100, 15 + 5 * availableParallelism()),
    patienceMs: 30_000,
    maxClients: 10_000,
    streamsPerAgent: 16,
    messageMs: 30_000,
    policiesExpectedMs: 250,
    stalledMs: 30_000,
    unansweredMs: 300_000,
  };
}

/** Names that the log may hold whatever the size of the mesh, and for how many times all of them. */
const MIN_LOG = 100_000;
const LOG_SHARE = 4;
/** Of refused streams in the log, and of what clients have to say. */
const LINES_PER_SECOND = 10;
/** How long a client may take to say who it is. */
const SILENCE_MS = 30_000;
/** How often it is looked for those that have been stuck for too long, within that time. */
const SWEEPS = 10;
/** A client that comes again reports what it holds: 200 000 names and versions take 20 MB. */
const MAX_REQUEST = 32 * 1024 * 1024;
