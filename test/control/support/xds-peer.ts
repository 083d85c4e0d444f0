/** A control plane's delta ADS, and the stock gRPC client with the stock protobuf codec as the node proxy that asks it. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { type Ads, type AdsLimits, createAds } from '../../../src/control/ads/ads.ts';
import type { Authenticate, Caller } from '../../../src/control/authentication.ts';
import { refusal } from '../../../src/control/grpc/service.ts';
import type { ConnectionLimits } from '../../../src/control/server.ts';
import { createLogger } from '../../../src/log/logger.ts';
import { expose } from '../../../src/metrics/exposition.ts';
import { createRegistry } from '../../../src/metrics/registry.ts';
import { eventually } from '../../cni/support/eventually.ts';
import { decode, encode } from '../../support/xds-schema.ts';
import { connectClient, metadata, openStream, serve, type TestServer, type TestStream } from './grpc.ts';
import { type Changes, createTestMesh, type TestMesh } from './mesh-resources.ts';

export { ADDRESS, AUTHORIZATION } from '../../support/istiod.ts';
export const WORKLOAD = 'type.googleapis.com/istio.workload.Workload';
export const PATH = '/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources';

export interface TestControlPlane extends TestServer {
  readonly mesh: TestMesh;
  readonly ads: Ads;
  /** Whether it says that it has all resources. */
  synced: boolean;
  /** The metrics as text. */
  metrics(): string;
  /** Waits until so many proxies are connected. */
  clients(count: number): Promise<void>;
}

export interface ControlPlaneOptions {
  readonly changes?: Changes;
  readonly limits?: Partial<AdsLimits>;
  readonly connections?: Partial<ConnectionLimits>;
  readonly authenticate?: Authenticate;
  readonly port?: number;
  readonly authority?: TestServer['authority'];
  readonly mesh?: TestMesh;
}

/** The caller that the token `namespace/account` stands for. */
const byToken: Authenticate = async ({ authorization }) => {
  const [namespace, serviceAccount] = String(authorization).replace('Bearer ', '').split('/');
  if (!namespace || !serviceAccount) throw refusal('UNAUTHENTICATED', 'request authenticate failure');
  return { namespace, serviceAccount, pod: null, node: null } satisfies Caller;
};

export async function startControlPlane(t: TestContext, options: ControlPlaneOptions = {}): Promise<TestControlPlane> {
  const {
    changes,
    limits,
    connections = {},
    authenticate = byToken,
    mesh = createTestMesh(changes),
    ...place
  } = options;
  const registry = createRegistry();
  const lines: string[] = [];
  const state = { synced: true };
  const ads = createAds({
    resources: mesh,
    authenticate,
    trustedAccounts: new Set(['mesh/agent', 'istio-system/agent']),
    isSynced: () => state.synced,
    limits: { debounceMs: 10, streamsPerSecond: 1000, policiesExpectedMs: 30, streamsPerAgent: 1000, ...limits },
    registry,
    log: createLogger({ format: 'plain', level: 'debug', write: (line) => void lines.push(line) }),
  });
  t.after(() => ads.close());
  const served = await serve(t, [ads.service], { limits: connections, ...place });
  return {
    ...served,
    mesh,
    ads,
    lines,
    get synced() {
      return state.synced;
    },
    set synced(value) {
      state.synced = value;
    },
    metrics: () => [...expose(registry)].join(''),
    clients: (count) => eventually(`${count} proxies are connected`, () => ads.clients().length === count),
  };
}

export interface PeerRequest {
  readonly typeUrl: string;
  readonly subscribe?: readonly string[];
  readonly unsubscribe?: readonly string[];
  readonly versions?: Readonly<Record<string, string>>;
  readonly nonce?: string;
  readonly error?: string;
  /** Null leaves the node out. */
  readonly node?: object | null;
}

export interface PeerResponse {
  readonly typeUrl: string;
  readonly nonce: string;
  readonly version: string;
  /** Names in order of the alphabet, as `removed`. */
  readonly names: readonly string[];
  readonly removed: readonly string[];
  readonly resources: ReadonlyMap<
    string,
    { readonly version: string; readonly aliases: readonly string[]; readonly typeUrl: string; readonly value: Buffer }
  >;
}

export interface Peer extends TestStream {
  ask(request: PeerRequest): void;
  /** The next response, which is acknowledged. */
  take(): Promise<PeerResponse>;
  /** The next response, which is not. */
  hold(): Promise<PeerResponse>;
  /** Responses that have come and have not been taken. */
  held(): PeerResponse[];
}

export const NODE = {
  id: 'ztunnel~10.0.0.9~agent-1.mesh~mesh.svc.cluster.local',
  metadata: struct({ NAME: 'agent-1', NAMESPACE: 'mesh', SERVICE_ACCOUNT: 'agent', NODE_NAME: 'node-a' }),
};

/** A stream of the agent `mesh/agent`, with a connection of its own. */
export function openPeer(t: TestContext, to: TestServer, token = 'mesh/agent'): Peer {
  const stream = openStream(connectClient(t, to), PATH, metadata({ authorization: `Bearer ${token}` }));
  let isFirst = true;
  const peer: Peer = {
    ...stream,
    ask({ typeUrl, subscribe = [], unsubscribe = [], versions = {}, nonce = '', error, node }) {
      const sent = node === undefined && isFirst ? NODE : node;
      isFirst = false;
      stream.send(
        encode('DeltaDiscoveryRequest', {
          ...(sent ? { node: sent } : {}),
          typeUrl,
          resourceNamesSubscribe: subscribe,
          resourceNamesUnsubscribe: unsubscribe,
          initialResourceVersions: versions,
          responseNonce: nonce,
          ...(error === undefined ? {} : { errorDetail: { code: 3, message: error } }),
        }),
      );
    },
    async take() {
      const response = await peer.hold();
      peer.ask({ typeUrl: response.typeUrl, nonce: response.nonce });
      return response;
    },
    hold: async () => readResponse(await stream.next()),
    held: () => stream.waiting.map(readResponse),
  };
  return peer;
}

export function readResponse(bytes: Buffer): PeerResponse {
  const { typeUrl, nonce, systemVersionInfo, resources, removedResources } = decode(
    'DeltaDiscoveryResponse',
    bytes,
  ) as unknown as {
    typeUrl: string;
    nonce: string;
    systemVersionInfo: string;
    resources: { name: string; version: string; aliases: string[]; resource: { typeUrl: string; value: Buffer } }[];
    removedResources: string[];
  };
  const byName = new Map(
    resources.map(({ name, version, aliases, resource }) => [name, { version, aliases, ...resource }]),
  );
  assert.equal(byName.size, resources.length, 'a resource came twice in one response');
  return {
    typeUrl,
    nonce,
    version: systemVersionInfo,
    names: [...byName.keys()].sort(),
    removed: removedResources.toSorted(),
    resources: byName,
  };
}

/** google.protobuf.Struct of texts. */
export function struct(values: Readonly<Record<string, string>>): object {
  return { fields: Object.fromEntries(Object.entries(values).map(([key, stringValue]) => [key, { stringValue }])) };
}
