import type { Worker } from 'node:worker_threads';
import { CulvertError } from '../errors.ts';
import type { LiveConnection } from '../explain/connection.ts';
import type { ThreadReport } from '../metrics/thread-metrics.ts';
import type { FromWorker, PodEndpointHealth, PodSnapshot, ToWorker } from './messages.ts';

/** A worker that keeps crashing is started again after this time, doubled each time, in ms. */
const RESTART_FIRST = 50;
const RESTART_MAX = 5000;
/** A worker that lived this long has not crashed at once. */
const RESTART_FORGIVEN = 60_000;

/** The place of one data-plane thread, and the questions that it has not answered. */
export class WorkerSlot {
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
    // A thread that did not come to work has not lived since its predecessor began.
    if (this.worker !== null && performance.now() - this.#startedAt > RESTART_FORGIVEN) this.#crashes = 0;
    this.worker = null;
    for (const answer of [...this.#waiting.values()]) answer(null);
    this.#waiting.clear();
    this.#drained?.();
  }

  /** How long to wait before the next thread is started, in ms; to be asked once for each that has ended. */
  restartDelay(): number {
    return Math.min(RESTART_MAX, RESTART_FIRST * 2 ** this.#crashes++);
  }

  send(message: ToWorker): void {
    this.worker?.postMessage(message);
  }

  /** Resolves with the error's text, '' when it went well or the thread is gone (it starts anew, from the pods it has to serve). */
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

  askUnhealthy(): Promise<readonly PodEndpointHealth[]> {
    return this.#question(
      (id) => ({ kind: 'unhealthy', id }),
      (answer) => (answer?.kind === 'unhealthy' ? answer.endpoints : []),
    );
  }

  /** Null when there is no such connection, or the thread is gone. */
  askConnection(number: number): Promise<LiveConnection | null> {
    return this.#question(
      (id) => ({ kind: 'connection', id, number }),
      (answer) => (answer?.kind === 'connection' ? answer.connection : null),
    );
  }

  /** Resolves when the thread has ended. */
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
