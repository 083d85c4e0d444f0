import { setFlagsFromString } from 'node:v8';
import { Worker } from 'node:worker_threads';
import { closeFd } from '../../native/netns.ts';
import { CulvertError, messageOf } from '../errors.ts';
import type { LiveConnection } from '../explain/connection.ts';
import type { PlaneSettings } from '../filters/plane.ts';
import { sharedBudget } from '../hbone/window-budget.ts';
import type { WorkloadCertificate } from '../identity/certificate.ts';
import type { LogFormat } from '../log/line.ts';
import type { Logger } from '../log/logger.ts';
import type { ReportingThread } from '../metrics/hub.ts';
import type { NetnsHandle } from '../netns/handle.ts';
import type { MeshChange } from '../state/mesh-state.ts';
import type { PodInfo, PodManager, RunningPod } from '../zds/types.ts';
import { ConnectionCounts, newConnectionCounts } from './connection-counts.ts';
import type { FromWorker, PlanQuery, PodEndpointHealth, PodSnapshot, ToWorker, WorkerData } from './messages.ts';
import { PlanRegistry } from './plan-registry.ts';
import type { DerivedPlan, Planner } from './planner.ts';
import type { PodMeshState } from './pod-mesh-state.ts';
import { newAffinityTable } from './tunnel-affinity.ts';
import { WorkerSlot } from './worker-slot.ts';

export interface SupervisorOptions {
  /** Number of data-plane threads, at least 1. */
  readonly threads: number;
  readonly settings: PlaneSettings;
  /** Revocation lists at the start; null when none are to be looked at. */
  readonly revocations: Uint8Array | null;
  readonly log: Logger;
  readonly logFormat: LogFormat;
  /** Answers what workers ask. */
  readonly plan: Planner;
  readonly certificate: (identity: string) => Promise<WorkloadCertificate>;
  /** What the mesh state says of a pod now; later changes come through `update`. */
  readonly meshState: (pod: PodInfo) => PodMeshState;
  /** A pod started or stopped; ask `running`. */
  readonly onPods: (change: { readonly kind: 'started' | 'stopped'; readonly pod: PodInfo }) => void;
  /** A thread ended; its metrics go with it. */
  readonly onThreadGone: (name: string) => void;
}

/**
 * The data-plane threads. Every pod is served by all of them; the kernel spreads its connections. A thread that crashes is
 * replaced and gets its pods back, the others go on.
 */
export class Supervisor implements PodManager {
  readonly #options: SupervisorOptions;
  readonly #slots: WorkerSlot[];
  readonly #pods = new Map<string, PodEntry>();
  /** Traffic of a pod can arrive as soon as the first of the threads listens. */
  readonly #starting = new Map<string, PodEntry>();
  readonly #stopping = new Map<string, Promise<unknown>>();
  readonly #holders = new Map<string, Set<WorkerSlot>>();
  readonly #plans = new PlanRegistry<WorkerSlot>();
  readonly #affinity = newAffinityTable();
  #revocations: Uint8Array | null;
  readonly #budget: SharedArrayBuffer;
  #stopped = false;

  constructor(options: SupervisorOptions) {
    this.#options = options;
    this.#revocations = options.revocations;
    this.#budget = sharedBudget(options.threads);
    this.#slots = Array.from({ length: options.threads }, (_, index) => new WorkerSlot(index + 1));
  }

  /** Resolves when every thread is up. */
  async launch(): Promise<void> {
    // The smallest young generation: it costs the data path nothing that can be measured, and saves 1.5 KB per held
    // connection (npm run bench -- memory). It is read when a thread is made.
    setFlagsFromString('--max-semi-space-size=1');
    await Promise.all(this.#slots.map((slot) => this.#spawn(slot)));
  }

  async start(pod: PodInfo, netns: NetnsHandle): Promise<void> {
    await this.#stopping.get(pod.uid);
    if (this.#stopped) throw new CulvertError('POD_START_FAILED', 'the agent is shutting down');
    const counts = newConnectionCounts(this.#slots.length);
    const entry = { pod, netns, state: this.#options.meshState(pod), counts };
    this.#starting.set(pod.uid, entry);
    const started = await Promise.all(this.#slots.map((slot) => this.#startOn(slot, entry)));
    this.#starting.delete(pod.uid);
    const error = started.find((text) => text !== '');
    if (error !== undefined) {
      await this.#stopEverywhere(pod.uid);
      throw new CulvertError('POD_START_FAILED', error);
    }
    this.#pods.set(pod.uid, entry);
    this.#options.onPods({ kind: 'started', pod });
  }

  stop(uid: string): void {
    const entry = this.#pods.get(uid);
    if (entry === undefined) return;
    this.#pods.delete(uid);
    this.#plans.forgetPod(uid);
    this.#options.onPods({ kind: 'stopped', pod: entry.pod });
    const stopped = this.#stopEverywhere(uid).then(() => {
      entry.netns.close();
      if (this.#stopping.get(uid) === stopped) this.#stopping.delete(uid);
    });
    this.#stopping.set(uid, stopped);
  }

  running(): ReadonlyMap<string, RunningPod> {
    return new Map([...this.#pods].map(([uid, { pod, netns }]) => [uid, { pod, netns: netns.key }]));
  }

  pods(): PodInfo[] {
    return [...this.#pods.values()].map(({ pod }) => pod);
  }

  /** A pod that runs or is being started. */
  podOf(uid: string): PodInfo | null {
    return (this.#pods.get(uid) ?? this.#starting.get(uid))?.pod ?? null;
  }

  /** Tells the threads what the mesh state says of a pod. */
  update(uid: string, state: PodMeshState): void {
    const entry = this.#pods.get(uid);
    if (entry === undefined) return;
    entry.state = state;
    this.#broadcast({ kind: 'pod-state', uid, state });
  }

  /** The mesh state changed: plans that were derived from what did are dropped. */
  invalidate(change: Pick<MeshChange, 'touched' | 'touchedBlocks'>): void {
    for (const [slot, plans] of this.#plans.takeTouched(change)) slot.send({ kind: 'invalidate', plans });
  }

  /** Whether a plan that is in use was derived from the look-up. */
  isRead(readKey: string): boolean {
    return this.#plans.isRead(readKey);
  }

  /** Whether a change can concern anything here. */
  get isServing(): boolean {
    return this.#pods.size > 0 || this.#plans.size > 0;
  }

  /** A certificate was renewed: the threads that have it get the new one. */
  renew(identity: string, certificate: WorkloadCertificate): void {
    for (const slot of this.#holders.get(identity) ?? []) slot.send({ kind: 'certificate', identity, certificate });
  }

  /** An identity is not used any more: the threads drop its certificate. */
  forget(identity: string): void {
    for (const slot of this.#holders.get(identity) ?? []) slot.send({ kind: 'forget-certificate', identity });
    this.#holders.delete(identity);
  }

  /** Other revocation lists are in force: connections of revoked peers are cut. */
  revoke(lists: Uint8Array): void {
    this.#revocations = lists;
    this.#broadcast({ kind: 'revocations', lists });
  }

  /** What the threads were told has been replaced many times: see `collectYoung`. */
  collectYoung(): void {
    this.#broadcast({ kind: 'collect-young' });
  }

  /** Resolves once every thread logs by it. */
  async setLogLevel(spec: string): Promise<void> {
    await Promise.all(this.#slots.map((slot) => slot.ask((id) => ({ kind: 'log-level', id, spec }))));
  }

  /** The threads, to be asked for their metrics. */
  threads(): ReportingThread[] {
    return this.#slots
      .filter(({ worker }) => worker !== null)
      .map((slot) => ({ name: slot.name, report: () => slot.askReport() }));
  }

  /** Every pod as each thread sees it, by the number of the thread. */
  async snapshots(): Promise<Map<number, readonly PodSnapshot[]>> {
    const all = await Promise.all(this.#slots.map(async (slot) => [slot.index, await slot.askSnapshot()] as const));
    return new Map(all);
  }

  /** The endpoints that pods could not reach, as each thread has met them. */
  async unhealthyEndpoints(): Promise<(PodEndpointHealth & { readonly worker: number })[]> {
    const all = await Promise.all(
      this.#slots.map(async (slot) =>
        (await slot.askUnhealthy()).map((endpoint) => ({ ...endpoint, worker: slot.index })),
      ),
    );
    return all.flat();
  }

  /** A live connection by the number of its thread and its number there; null when there is none. */
  connection(thread: number, number: number): Promise<LiveConnection | null> {
    return this.#slots[thread - 1]?.askConnection(number) ?? Promise.resolve(null);
  }

  /** Lets connections end, and then the threads. Listeners are closed at once. */
  async drain(deadlineMs: number): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#slots.map((slot) => slot.drain(deadlineMs)));
    for (const { netns } of this.#pods.values()) netns.close();
    this.#pods.clear();
  }

  #broadcast(message: ToWorker): void {
    for (const slot of this.#slots) slot.send(message);
  }

  #startOn(slot: WorkerSlot, { pod, netns, state, counts }: PodEntry): Promise<string> {
    return slot.ask((id) => ({ kind: 'start-pod', id, pod, netns: netns.fd, state, counts }));
  }

  #stopEverywhere(uid: string): Promise<unknown> {
    return Promise.all(this.#slots.map((slot) => slot.ask((id) => ({ kind: 'stop-pod', id, uid }))));
  }

  #spawn(slot: WorkerSlot): Promise<void> {
    const { settings, log, logFormat } = this.#options;
    const data: WorkerData = {
      name: slot.nextName(),
      index: slot.index,
      affinity: this.#affinity,
      budget: this.#budget,
      settings,
      revocations: this.#revocations,
      logLevel: log.level(),
      logFormat,
    };
    const worker = new Worker(ENTRY, { workerData: data, name: data.name, stdout: false, stderr: false });
    return new Promise((resolve) => {
      worker.on('message', (message: FromWorker) => {
        if (message.kind === 'ready') {
          // It was being replaced when the end began: there is nothing left for it to do.
          if (this.#stopped) {
            void worker.terminate();
            return;
          }
          slot.attach(worker);
          const lists = this.#revocations;
          if (lists !== null && lists !== data.revocations) slot.send({ kind: 'revocations', lists });
          const spec = log.level();
          if (spec !== data.logLevel) void slot.ask((id) => ({ kind: 'log-level', id, spec }));
          this.#restore(slot);
          resolve();
          return;
        }
        this.#receive(slot, message);
      });
      worker.on('error', (error: Error) =>
        log.error('proxy', 'a data-plane thread failed', { thread: data.name, error: error.stack ?? error.message }),
      );
      worker.on('exit', (code) => {
        slot.detach();
        for (const { counts } of [...this.#pods.values(), ...this.#starting.values()]) {
          new ConnectionCounts(counts, slot.index).clear();
        }
        this.#plans.forgetThread(slot);
        for (const holders of this.#holders.values()) holders.delete(slot);
        this.#options.onThreadGone(data.name);
        if (this.#stopped) {
          resolve();
          return;
        }
        const delay = slot.restartDelay();
        log.warn('proxy', 'a data-plane thread ended and is started again', {
          thread: data.name,
          code,
          delay: `${delay}ms`,
        });
        setTimeout(() => {
          if (this.#stopped) resolve();
          else void this.#spawn(slot).then(resolve);
        }, delay);
      });
    });
  }

  /** A new thread in the place of one that crashed gets the pods of the others. */
  #restore(slot: WorkerSlot): void {
    for (const entry of [...this.#pods.values(), ...this.#starting.values()]) {
      const { uid } = entry.pod;
      void this.#startOn(slot, entry).then((error) => {
        if (error !== '')
          this.#options.log.error('proxy', 'a thread cannot serve a pod', { pod: uid, thread: slot.name, error });
      });
    }
  }

  #receive(slot: WorkerSlot, message: FromWorker): void {
    switch (message.kind) {
      case 'ask-plan':
        this.#plan(slot, message.id, message.query);
        break;
      case 'pass-on': {
        const { to, uid, fd, ends } = message;
        const owner = this.#slots[to - 1];
        // A thread that is being replaced, or that may not have the pod yet: then the tunnel stays where it was accepted.
        const taker = owner === undefined || owner.worker === null || !this.#pods.has(uid) ? slot : owner;
        if (taker.worker === null) closeFd(fd);
        else taker.send({ kind: 'tunnel', uid, fd, ends });
        break;
      }
      case 'ask-certificate':
        this.#giveCertificate(slot, message.identity);
        break;
      default:
        slot.settle(message);
    }
  }

  #plan(slot: WorkerSlot, id: number, query: PlanQuery): void {
    const { worker } = slot;
    // In one turn: what was read, and the answer itself. A change after that finds both.
    const answer = ({ plan, reads }: DerivedPlan) => {
      // Another thread may be in its place by now; its questions have the same numbers.
      if (slot.worker !== worker) return;
      slot.send({ kind: 'plan', id, plan });
      if (this.podOf(query.uid) === null) return;
      const displaced = this.#plans.add(slot, query.uid, id, reads);
      if (displaced.length > 0) slot.send({ kind: 'invalidate', plans: displaced });
    };
    this.#options.plan(query, answer).catch((error) => {
      this.#options.log.error('proxy', 'a route could not be planned', { error: messageOf(error) });
      if (slot.worker === worker) slot.send({ kind: 'plan', id, plan: null });
    });
  }

  #giveCertificate(slot: WorkerSlot, identity: string): void {
    // A thread may show only the identities of pods that run here.
    const entries = [...this.#pods.values(), ...this.#starting.values()];
    if (!entries.some(({ state }) => state.identity === identity)) {
      slot.send({ kind: 'no-certificate', identity, error: 'no pod of this node has that identity' });
      return;
    }
    this.#options.certificate(identity).then(
      (certificate) => {
        let holders = this.#holders.get(identity);
        if (holders === undefined) {
          holders = new Set();
          this.#holders.set(identity, holders);
        }
        holders.add(slot);
        slot.send({ kind: 'certificate', identity, certificate });
      },
      (error) => slot.send({ kind: 'no-certificate', identity, error: messageOf(error) }),
    );
  }
}

interface PodEntry {
  readonly pod: PodInfo;
  readonly netns: NetnsHandle;
  state: PodMeshState;
  readonly counts: SharedArrayBuffer;
}

/** The sources run as they are; the bundle has an entry of its own for threads. */
const ENTRY = new URL(import.meta.url.endsWith('.ts') ? './thread.ts' : './worker.mjs', import.meta.url);
