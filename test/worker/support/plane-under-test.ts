/** The data plane of one thread in the test's own thread and namespace, between a real client and a real server. */
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { OWN_NETNS } from '../../../native/netns.ts';
import type { PlaneSettings } from '../../../src/filters/plane.ts';
import type { WorkloadCertificate } from '../../../src/identity/certificate.ts';
import { openEmbeddedCa } from '../../../src/identity/embedded-ca.ts';
import { createLogger } from '../../../src/log/logger.ts';
import { createThreadMetrics, type ThreadMetrics } from '../../../src/metrics/thread-metrics.ts';
import type { SocketAddress } from '../../../src/netns/address.ts';
import { compilePolicies } from '../../../src/policy/compile.ts';
import type { CompiledPolicies, Policy } from '../../../src/policy/types.ts';
import type { InboundPlan, OutboundPlan, WorkloadLabels } from '../../../src/routing/plan.ts';
import { newConnectionCounts } from '../../../src/worker/connection-counts.ts';
import { DataPlane, type Ports } from '../../../src/worker/data-plane.ts';
import type { PlanQuery } from '../../../src/worker/messages.ts';
import type { PodMeshState } from '../../../src/worker/pod-mesh-state.ts';
import type { PodInfo } from '../../../src/zds/types.ts';
import { meshOf, policy, workload } from '../../state/mesh-builder.ts';
import { freePorts } from '../../support/free-ports.ts';
import { PATIENCE_MS } from '../../support/patience.ts';

export const LOCALHOST = '127.0.0.1';
export const POD: PodInfo = { uid: 'uid-1', name: 'pod', namespace: 'demo', serviceAccount: 'app' };
export const IDENTITY = 'spiffe://cluster.local/ns/demo/sa/app';
export const ALLOW_ALL: CompiledPolicies = compiled();
export const DENY_ALL: CompiledPolicies = compiled(policy('nobody', { namespace: 'demo', rules: [[]] }));
export const SERVED: PodMeshState = { identity: IDENTITY, policies: ALLOW_ALL };

/** What judges the pod when these are the policies of its namespace. */
export function compiled(...policies: (readonly [string, Policy])[]): CompiledPolicies {
  const mesh = meshOf({ policies, workloads: [workload('pod', { namespace: 'demo' })] });
  return compilePolicies(mesh, mesh.workload('Kubernetes//Pod/demo/pod')!);
}

export interface PlaneUnderTest {
  readonly plane: DataPlane;
  readonly ports: Ports;
  readonly metrics: ThreadMetrics;
  /** What the plane has asked the control thread, in order. */
  readonly asked: PlanQuery[];
  /** Answers plan questions; by default the pod's outbound traffic goes through a tunnel to the pod itself, to `app`. */
  answer: (query: PlanQuery) => OutboundPlan | InboundPlan | null | 'never';
  /** Certificates that the plane asked for. */
  readonly certificates: string[];
  /** Answers certificate questions; by default with a fresh one of the test's CA. */
  certify: (identity: string) => void;
  sign(identity: string): Promise<WorkloadCertificate>;
  /** The port of the application that tunnels lead to. */
  app: number;
  log(): string;
  /** Waits for a line of the log with this text. */
  line(text: string): Promise<string>;
}

export async function planeUnderTest(
  t: TestContext,
  changed: Partial<PlaneSettings> = {},
  thread = 1,
): Promise<PlaneUnderTest> {
  const folder = mkdtempSync(join(tmpdir(), 'culvert-plane-'));
  const authority = await openEmbeddedCa({ dir: join(folder, 'ca'), ttl: 3_600_000, now: Date.now });
  const [outbound, plaintext, hbone] = (await freePorts(3)) as [number, number, number];
  const ports = { outbound, plaintext, hbone };
  const metrics = createThreadMetrics(null);
  let text = '';
  const watching = new Set<() => void>();
  const log = createLogger({
    format: 'plain',
    level: 'debug',
    write(line) {
      text += line;
      for (const look of [...watching]) look();
    },
  });
  const rig: PlaneUnderTest = {
    ports,
    metrics,
    asked: [],
    certificates: [],
    app: 0,
    answer: (query) =>
      query.kind === 'outbound' ? tunnelTo(ports, rig.app) : deliverTo({ ip: LOCALHOST, port: rig.app }),
    certify: (identity) =>
      void authority.sign(identity).then((certificate) => plane.setCertificate(identity, certificate)),
    sign: (identity) => authority.sign(identity),
    log: () => text,
    line: (wanted) =>
      new Promise((resolve, reject) => {
        const look = () => {
          const line = text.split('\n').find((candidate) => candidate.includes(wanted));
          if (line === undefined) return;
          watching.delete(look);
          clearTimeout(timer);
          resolve(line);
        };
        const timer = setTimeout(() => reject(new Error(`no line with ${wanted} in:\n${text}`)), PATIENCE_MS);
        watching.add(look);
        look();
      }),
    get plane() {
      return plane;
    },
  };
  const plane: DataPlane = new DataPlane({
    thread,
    settings: { ...SETTINGS, ...changed },
    log,
    metrics,
    ports,
    askPlan(query, done) {
      const id = rig.asked.push(query);
      queueMicrotask(() => {
        const plan = rig.answer(query);
        if (plan !== 'never') done(plan, id);
      });
    },
    askCertificate(identity) {
      rig.certificates.push(identity);
      rig.certify(identity);
    },
  });
  t.after(() => {
    plane.stop();
    metrics.close();
    rmSync(folder, { recursive: true });
    if (!t.passed) t.diagnostic(`the plane's log:\n${text}`);
  });
  return rig;
}

/** Serves POD in the test's own namespace. */
export function startPod(
  { plane }: PlaneUnderTest,
  state: PodMeshState = SERVED,
  counts: SharedArrayBuffer = newConnectionCounts(1),
): void {
  plane.startPod(POD, OWN_NETNS, state, counts);
}

/** An application; its connections in the order they came. */
export interface Application {
  readonly server: Server;
  readonly port: number;
  readonly sockets: Socket[];
  next(): Promise<Socket>;
}

export async function application(
  t: TestContext,
  options: { readonly allowHalfOpen?: boolean } = {},
): Promise<Application> {
  const sockets: Socket[] = [];
  const waiting: ((socket: Socket) => void)[] = [];
  let given = 0;
  const server = createServer({ allowHalfOpen: options.allowHalfOpen ?? false }, (socket) => {
    socket.on('error', () => {});
    sockets.push(socket);
    if (waiting.length > 0) {
      given++;
      waiting.shift()!(socket);
    }
  });
  await new Promise<void>((resolve) => server.listen(0, LOCALHOST, resolve));
  t.after(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return {
    server,
    sockets,
    port: (server.address() as { port: number }).port,
    next: () =>
      patiently(
        'no connection to the application',
        new Promise((resolve) => {
          if (given < sockets.length) resolve(sockets[given++]!);
          else waiting.push(resolve);
        }),
      ),
  };
}

/** A client's connection; `ended` tells how it ends: with a FIN or with a reset. */
export interface Client {
  readonly socket: Socket;
  readonly ended: Promise<'end' | 'reset'>;
}

export async function dial(t: TestContext, port: number): Promise<Client> {
  const socket = connect({ host: LOCALHOST, port, allowHalfOpen: true });
  t.after(() => socket.destroy());
  const ended = new Promise<'end' | 'reset'>((resolve) => {
    socket.on('error', () => resolve('reset'));
    socket.on('end', () => resolve('end'));
    socket.on('close', () => resolve('reset'));
  });
  const connected = new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve);
    // A reset may overtake the news of the connection.
    socket.once('error', (error: NodeJS.ErrnoException) => (error.code === 'ECONNRESET' ? resolve() : reject(error)));
  });
  await patiently('no connection', connected);
  return { socket, ended: patiently('the connection does not end', ended) };
}

export function patiently<T>(what: string, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout;
  const expired = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(what)), PATIENCE_MS);
  });
  promise.catch(() => {});
  return Promise.race([promise, expired]).finally(() => clearTimeout(timer));
}

/** Asks every few milliseconds, for what nothing tells. */
export async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const end = performance.now() + PATIENCE_MS;
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(what);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

export const LABELS: WorkloadLabels = {
  uid: POD.uid,
  name: POD.name,
  workloadName: 'pod',
  workloadType: 'deployment',
  namespace: POD.namespace,
  canonicalName: 'pod',
  canonicalRevision: 'v1',
  clusterId: 'Kubernetes',
  region: '',
  zone: '',
  identity: IDENTITY,
};

export function tunnelTo(ports: Ports, app: number): OutboundPlan {
  return {
    kind: 'forward',
    service: null,
    source: LABELS,
    groups: [
      {
        protocol: 'hbone',
        port: ports.hbone,
        authority: { kind: 'own', port: app },
        tier: 0,
        weight: 1,
        expectedIdentities: [IDENTITY],
        inner: null,
        hostname: '',
        destination: LABELS,
        uids: [POD.uid],
        names: new Map(),
        ips: [LOCALHOST],
      },
    ],
  };
}

export function deliverTo(target: SocketAddress): InboundPlan {
  return { kind: 'deliver', target, source: LABELS, destination: LABELS, service: null, appTunnel: null };
}

/** Times that no test is to reach by being slow; those that are about one set it. */
export const SETTINGS: PlaneSettings = {
  mark: 0,
  reusePort: true,
  ipv6: false,
  originalSource: false,
  keepalive: null,
  userTimeoutMs: 0,
  localhostAppTunnel: true,
  responseBaggage: true,
  maxConnectionsPerPod: 0,
  maxHandshakesPerPod: 0,
  connectTimeout: 30_000,
  attemptTimeout: 5000,
  ejectionTime: 60_000,
  ejectionMaxTime: 600_000,
  ejectionMaxPercent: 50,
  handshakeTimeout: 30_000,
  settingsTimeout: 30_000,
  responseTimeout: 30_000,
  maxStreamsPerTunnel: 100,
  tunnelIdleTimeout: 60_000,
  tunnelMaxAge: 0,
  streamWindow: 4 * 1024 * 1024,
  connectionWindow: 16 * 1024 * 1024,
  frameSize: 1024 * 1024,
  windowBudget: 64 * 1024 * 1024,
  tlsGroups: 'X25519',
  keyLogPath: '',
  tls12: false,
  keyLogAddresses: null,
  policyInfoLogging: false,
};
