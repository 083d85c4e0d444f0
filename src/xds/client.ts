/**
 * The delta ADS client: keeps a stream to the control plane and the mesh state in step with it (spec §9). Loaded only when
 * there is a control plane.
 */

import { createBackoff } from '../backoff.ts';
import type { ControlPlaneServer } from '../control-plane/grpc.ts';
import type { Logger } from '../log/logger.ts';
import type { LocalLayer, Overlay } from '../state/local-layer.ts';
import type { MeshStore } from '../state/mesh-state.ts';
import { type AdsStream, describeRejected, openAdsStream, TYPES } from './ads-stream.ts';
import { AUTHORIZATION, type Node } from './delta.ts';
import { createDemands, type Demands } from './demands.ts';
import { explain, kindOf, type Termination, terminationOf } from './failure.ts';
import type { StreamEnd } from './grpc-stream.ts';
import { Intake, type TakenIn } from './intake.ts';
import type { KnownResources, Push } from './known.ts';
import { createTroubleLog } from './trouble-log.ts';

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
  let current: AdsStream | null = null;
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
    current = openAdsStream({
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
    if (reason === 'ConnectionError' || reason === 'Error' || !brought)
      troubles.met(kindOf(end), sentence, delay, isSynced);
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
        reasons: describeRejected(rejected, MAX_LOGGED),
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

/** `Address` of `type.googleapis.com/istio.workload.Address`. */
function shortName(typeUrl: string): string {
  return typeUrl.slice(typeUrl.lastIndexOf('.') + 1);
}

// The delays of the incumbent (spec §9.5), with a jitter, so that the agents of a cluster do not come all at once.
const FIRST_DELAY_MS = 20;
const MAX_DELAY_MS = 15_000;
const JITTER = 0.5;
const MAX_LOGGED = 5;
/** How long the first delivery may take before it is said that it is missing. */
const SLOW_MS = 30_000;
