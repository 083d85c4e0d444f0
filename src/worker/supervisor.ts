import { Worker } from 'node:worker_threads';
import { CulvertError, messageOf } from '../errors.ts';
import type { PlaneSettings } from '../filters/plane.ts';
import type { WorkloadCertificate } from '../identity/certificate.ts';
import type { LogFormat } from '../log/line.ts';
import type { Logger } from '../log/logger.ts';
import type { ReportingThread } from '../metrics/hub.ts';
import type { ThreadReport } from '../metrics/thread-metrics.ts';
import type { NetnsHandle } from '../netns/handle.ts';
import type { CompiledPolicies } from '../policy/types.ts';
import type { InboundPlan, OutboundPlan } from '../routing/plan.ts';
import type { PodInfo, PodManager, RunningPod } from '../zds/types.ts';
import type { FromWorker, PlanQuery, PodSnapshot, ToWorker, WorkerData } from './messages.ts';

export interface SupervisorOptions {
  /** Number of data-plane threads, at least 1. */
  readonly threads: number;
  readonly settings: PlaneSettings;
  readonly log: Logger;
  readonly logFormat: LogFormat;
  /** Answers what workers ask. */
  readonly plan: (query: PlanQuery) => Promise<OutboundPlan | InboundPlan>;
  readonly certificate: (identity: string) => Promise<WorkloadCertificate>;
  /** A pod started or stopped; ask `running`. */
  readonly onPods: (change: { readonly kind: 'started' | 'stopped'; readonly pod: PodInfo }) => void;
  /** A thread ended; its metrics go with it. */
  readonly onThreadGone: (name: string) => void;
}

/** What the mesh state says of a pod. */
export interface PodMeshState {
  readonly identity: string | null;
  readonly policies: CompiledPolicies | null;
}

/** A worker that keeps crashing is started again after this time, doubled each time, in ms. */
const RESTART_FIRST = 50;
const RESTART_MAX = 5000;
/** A worker that lived this long has not crashed at once. */
const RESTART_FORGIVEN = 60_000;

/**
 * The data-plane threads. Every pod is served by all of them; the kernel spreads its connections. A thread that crashes is
 * replaced and gets its pods back, the others go on.
 */
export class Supervisor implements PodManager {
  readonly #options: SupervisorOptions;
  readonly #slots: WorkerSlot[];
  readonly #pods = new Map<string, PodEntry>();
  readonly #stopping = new Map<string, Promise<unknown>>();
  readonly #holders = new Map<string, Set<WorkerSlot>>();
  #stopped = false;

  constructor(options: SupervisorOptions) {
    this.#options = options;
    this.#slots = Array.from({ length: options.threads }, (_, index) => new WorkerSlot(index + 1));
  }

  /** Resolves when every thread is up. */
  async launch(): Promise<void> {
    await Promise.all(this.#slots.map((slot) => this.#spawn(slot)));
  }

  async start(pod: PodInfo, netns: NetnsHandle): Promise<void> {
    await this.#stopping.get(pod.uid);
    const started = await Promise.all(this.#slots.map((slot) => this.#startOn(slot, pod, netns)));
    const error = started.find((text) => text !== '');
    if (error !== undefined) {
      await Promise.all(this.#slots.map((slot) => slot.ask((id) => ({ kind: 'stop-pod', id, uid: pod.uid }))));
      throw new CulvertError('POD_START_FAILED', error);
    }
    this.#pods.set(pod.uid, { pod, netns, state: { identity: null, policies: null } });
    this.#options.onPods({ kind: 'started', pod });
  }

  stop(uid: string): void {
    const entry = this.#pods.get(uid);
    if (entry === undefined) return;
    this.#pods.delete(uid);
    this.#options.onPods({ kind: 'stopped', pod: entry.pod });
    const stopped = Promise.all(this.#slots.map((slot) => slot.ask((id) => ({ kind: 'stop-pod', id, uid })))).then(
      () => {
        entry.netns.close();
        if (this.#stopping.get(uid) === stopped) this.#stopping.delete(uid);
      },
    );
    this.#stopping.set(uid, stopped);
  }

  running(): ReadonlyMap<string, RunningPod> {
    return new Map([...this.#pods].map(([uid, { pod, netns }]) => [uid, { pod, netns: netns.key }]));
  }

  pods(): PodInfo[] {
    return [...this.#pods.values()].map(({ pod }) => pod);
  }

  /** Tells the threads what the mesh state says of a pod. */
  update(uid: string, state: PodMeshState): void {
    const entry = this.#pods.get(uid);
    if (entry === undefined) return;
    entry.state = state;
    this.#broadcast({ kind: 'pod-state', uid, ...state });
  }

  /** Plans may have changed; null for those of all pods. */
  invalidate(uids: readonly string[] | null): void {
    this.#broadcast({ kind: 'invalidate', uids });
  }

  /** A certificate was renewed: the threads that have it get the new one. */
  renew(identity: string, certificate: WorkloadCertificate): void {
    for (const slot of this.#holders.get(identity) ?? []) slot.send({ kind: 'certificate', identity, certificate });
  }

  setLogLevel(spec: string): void {
    this.#broadcast({ kind: 'log-level', spec });
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

  async #startOn(slot: WorkerSlot, pod: PodInfo, netns: NetnsHandle): Promise<string> {
    return slot.ask((id) => ({ kind: 'start-pod', id, pod, netns: netns.fd }));
  }

  #spawn(slot: WorkerSlot): Promise<void> {
    const { settings, log, logFormat } = this.#options;
    const data: WorkerData = { name: slot.nextName(), settings, logLevel: log.level(), logFormat };
    const worker = new Worker(ENTRY, { workerData: data, name: data.name, stdout: false, stderr: false });
    return new Promise((resolve) => {
      worker.on('message', (message: FromWorker) => {
        if (message.kind === 'ready') {
          slot.attach(worker);
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
        setTimeout(() => void this.#spawn(slot).then(resolve), delay);
      });
    });
  }

  /** A new thread in the place of one that crashed gets the pods that run. */
  #restore(slot: WorkerSlot): void {
    for (const [uid, { pod, netns, state }] of this.#pods) {
      void this.#startOn(slot, pod, netns).then((error) => {
        if (error !== '')
          this.#options.log.error('proxy', 'a thread cannot serve a pod', { pod: uid, thread: slot.name, error });
      });
      slot.send({ kind: 'pod-state', uid, ...state });
    }
  }

  #receive(slot: WorkerSlot, message: FromWorker): void {
    switch (message.kind) {
      case 'ask-plan':
        this.#options.plan(message.query).then(
          (plan) => slot.send({ kind: 'plan', id: message.id, plan }),
          (error) => this.#options.log.error('proxy', 'a route could not be planned', { error: messageOf(error) }),
        );
        break;
      case 'ask-certificate':
        this.#giveCertificate(slot, message.identity);
        break;
      default:
        slot.settle(message);
    }
  }

  #giveCertificate(slot: WorkerSlot, identity: string): void {
    // A thread may show only the identities of pods that run here.
    if (![...this.#pods.values()].some(({ state }) => state.identity === identity)) {
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
}

/** The sources run as they are; the bundle has an entry of its own for threads. */
const ENTRY = new URL(import.meta.url.endsWith('.ts') ? './thread.ts' : './worker.mjs', import.meta.url);

/** The place of one thread, and the questions that it has not answered. */
class WorkerSlot {
  readonly index: number;
  worker: Worker | null = null;
  name = '';
  readonly #waiting = new Map<number, (answer: FromWorker | null) => void>();
  #nextId = 1;
  #incarnation = 0;
  #crashes = 0;
  #startedAt = 0;
  #drained: (() => void) | null = null;

  constructor(index: number) {
    this.index = index;
  }

  /** Names are unique per incarnation: metrics tell them apart. */
  nextName(): string {
    this.#incarnation++;
    this.name = this.#incarnation === 1 ? `worker-${this.index}` : `worker-${this.index}.${this.#incarnation}`;
    return this.name;
  }

  attach(worker: Worker): void {
    this.worker = worker;
    this.#startedAt = performance.now();
  }

  detach(): void {
    this.worker = null;
    for (const answer of [...this.#waiting.values()]) answer(null);
    this.#waiting.clear();
    this.#drained?.();
  }

  restartDelay(): number {
    if (performance.now() - this.#startedAt > RESTART_FORGIVEN) this.#crashes = 0;
    return Math.min(RESTART_MAX, RESTART_FIRST * 2 ** this.#crashes++);
  }

  send(message: ToWorker): void {
    this.worker?.postMessage(message);
  }

  /** Resolves with the error's text, '' when it went well or the thread is gone (it starts anew, from the pods that run). */
  ask(message: (id: number) => ToWorker): Promise<string> {
    return this.#question(message, (answer) => (answer?.kind === 'done' ? answer.error : ''));
  }

  askReport(): Promise<ThreadReport> {
    return this.#question(
      (id) => ({ kind: 'report', id }),
      (answer) => {
        if (answer?.kind !== 'report') throw new CulvertError('THREAD_GONE', `thread ${this.name} ended`);
        return answer.report;
      },
    );
  }

  askSnapshot(): Promise<readonly PodSnapshot[]> {
    return this.#question(
      (id) => ({ kind: 'connections', id }),
      (answer) => (answer?.kind === 'connections' ? answer.pods : []),
    );
  }

  drain(deadlineMs: number): Promise<void> {
    if (this.worker === null) return Promise.resolve();
    return new Promise((resolve) => {
      this.#drained = resolve;
      this.send({ kind: 'drain', deadlineMs });
    });
  }

  settle(message: FromWorker): void {
    if (!('id' in message)) return;
    const answer = this.#waiting.get(message.id);
    this.#waiting.delete(message.id);
    answer?.(message);
  }

  #question<T>(message: (id: number) => ToWorker, read: (answer: FromWorker | null) => T): Promise<T> {
    return new Promise((resolve, reject) => {
      const settle = (answer: FromWorker | null) => {
        try {
          resolve(read(answer));
        } catch (error) {
          reject(error);
        }
      };
      if (this.worker === null) {
        settle(null);
        return;
      }
      const id = this.#nextId++;
      this.#waiting.set(id, settle);
      this.send(message(id));
    });
  }
}
