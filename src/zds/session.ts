import { CulvertError, messageOf } from '../errors.ts';
import type { Logger } from '../log/logger.ts';
import type { NetnsHandle } from '../netns/handle.ts';
import type { PodInfo, PodManager, Timers, WorkloadRequest } from './types.ts';

/** How a request is answered. After a `violation` the connection has to go: its two ends disagree about the protocol. */
export type Outcome =
  | { readonly kind: 'ack' }
  | { readonly kind: 'nack'; readonly text: string }
  | { readonly kind: 'violation'; readonly text: string };

/** What stands between this agent and readiness (spec §1.6). */
export type Readiness = 'disconnected' | 'snapshot-pending' | 'pods-pending' | 'ready';

/**
 * The agent's side of ZDS as a state machine (spec §1.3-1.5), without the wire. It lives as long as the agent: a new
 * connection starts a new snapshot, while the pods that run go on running.
 *
 * Requests are handled one at a time in the order of their arrival; retries take their place in the same order.
 */
export interface ZdsSession {
  /** A connection was made and its snapshot begins. */
  connected(): void;
  /** The connection is gone. What failed to start is tried on: the node agent may come back without its descriptor. */
  disconnected(): void;
  /** Gives up on everything that does not run yet. */
  close(): void;
  /**
   * Handles one request. `netns` is what came with an `add`: the namespace, or why the descriptor was refused. The
   * handle belongs to the session from here on, whatever the outcome.
   */
  receive(request: WorkloadRequest, netns: NetnsHandle | CulvertError | null): Promise<Outcome>;
  readiness(): Readiness;
  /** Pods that are wanted and do not run: their start failed and is tried again, or is taking its time. */
  pending(): readonly PodInfo[];
  /** Starts that failed so far, retries included. */
  failedStarts(): number;
}

export interface SessionOptions {
  readonly pods: PodManager;
  readonly timers: Timers;
  readonly log: Pick<Logger, 'info' | 'warn'>;
  /** Called when the answer of `readiness` changed. */
  readonly onReadiness: (readiness: Readiness) => void;
}

/** Between two attempts to start what failed (spec §1.5). */
export const RETRY_MS = 5000;
/** A start that takes longer is answered without it: the node agent gives up after 5 s. */
export const ANSWER_MS = 4000;

export function createZdsSession({ pods, timers, log, onReadiness }: SessionOptions): ZdsSession {
  let snapshot: 'none' | 'receiving' | 'complete' = 'none';
  /** Counts connections: what an earlier one asked for and has not got its turn is void. */
  let connection = 0;
  let mentioned = new Set<string>();
  /** Wanted and not running. An entry leaves when it runs or is no longer wanted. */
  const waiting = new Map<string, Waiting>();
  /** The last start of a uid that has not settled yet. A second one of that uid has to wait for it. */
  const unsettled = new Map<string, Promise<void>>();
  let queue: Promise<unknown> = Promise.resolve();
  let cancelRetry: (() => void) | null = null;
  let reported: Readiness = 'disconnected';
  let failedStarts = 0;

  return {
    connected() {
      connection++;
      snapshot = 'receiving';
      mentioned = new Set();
      report();
    },
    disconnected() {
      snapshot = 'none';
      report();
    },
    close() {
      snapshot = 'none';
      cancelRetry?.();
      cancelRetry = null;
      for (const uid of [...waiting.keys()]) abandon(uid);
      report();
    },
    receive(request, netns) {
      const from = connection;
      return inOrder(async () => {
        if (from !== connection || snapshot === 'none') {
          release(netns);
          return violation('the connection is gone');
        }
        const outcome = await handle(request, netns);
        report();
        return outcome;
      });
    },
    readiness,
    pending: () => [...waiting.values()].map(({ pod }) => pod),
    failedStarts: () => failedStarts,
  };

  async function handle(request: WorkloadRequest, netns: NetnsHandle | CulvertError | null): Promise<Outcome> {
    switch (request.kind) {
      case 'add':
        return addRequested(request, netns);
      case 'keep':
        if (snapshot === 'complete') return violation('pod keep received after snapshot');
        mentioned.add(request.uid);
        return ACK;
      case 'del':
        return remove(request.uid);
      case 'snapshot-sent':
        if (snapshot === 'complete') return violation('pod snapshot received already');
        reconcile();
        return ACK;
    }
  }

  async function addRequested(request: AddRequest, netns: NetnsHandle | CulvertError | null): Promise<Outcome> {
    const { uid, workload } = request;
    if (uid !== '' && workload !== null && netns !== null) return add({ uid, ...workload }, netns);
    release(netns);
    const missing = uid === '' ? 'uid' : workload === null ? 'workload_info' : 'namespace';
    return violation(`${missing} is required but not present`);
  }

  async function add(pod: PodInfo, netns: NetnsHandle | CulvertError): Promise<Outcome> {
    const { uid } = pod;
    if (snapshot === 'receiving') mentioned.add(uid);
    // The node agent hears of its mistake, and a pod that runs goes on in the namespace it has.
    if (netns instanceof CulvertError) return startFailure(netns.message);
    const underWay = waiting.get(uid);
    if (underWay?.state === 'starting' && underWay.netns.key === netns.key && sameInfo(underWay.pod, pod)) {
      netns.close();
      return answerInTime(underWay);
    }
    abandon(uid);
    const running = pods.running().get(uid);
    if (running !== undefined) {
      if (running.netns === netns.key && sameInfo(running.pod, pod)) {
        netns.close();
        return ACK;
      }
      // A new sandbox, or the same one under another identity: what runs serves the wrong one.
      log.info('zds', 'pod changed, starting it anew', { uid, name: pod.name, namespace: pod.namespace });
      pods.stop(uid);
    }
    const entry: Waiting = {
      pod,
      netns,
      state: 'starting',
      attempt: Promise.resolve(ACK),
      overdue: false,
      wanted: true,
    };
    waiting.set(uid, entry);
    start(entry);
    return answerInTime(entry);
  }

  function remove(uid: string): Outcome {
    mentioned.delete(uid);
    abandon(uid);
    // During a snapshot the pod goes on until the snapshot is complete: the node agent may yet mention it again.
    if (snapshot === 'complete' && pods.running().has(uid)) pods.stop(uid);
    return ACK;
  }

  function reconcile(): void {
    for (const uid of [...pods.running().keys()]) {
      if (mentioned.has(uid)) continue;
      log.info('zds', 'pod is not in the snapshot, stopping it', { uid });
      pods.stop(uid);
    }
    // A start of an earlier connection that is still under way.
    for (const uid of [...waiting.keys()]) if (!mentioned.has(uid)) abandon(uid);
    mentioned = new Set();
    snapshot = 'complete';
  }

  /** Starts an entry of `waiting`, and undoes that when it is no longer wanted by then. `attempt` never rejects. */
  function start(entry: Waiting): void {
    const { pod, netns } = entry;
    const before = unsettled.get(pod.uid) ?? Promise.resolve();
    entry.state = 'starting';
    entry.attempt = before.then(async (): Promise<Outcome> => {
      if (!entry.wanted) {
        netns.close();
        return startFailure('superseded');
      }
      try {
        await pods.start(pod, netns);
      } catch (cause) {
        failedStarts++;
        const text = messageOf(cause);
        log.warn('zds', 'failed to start proxy', {
          uid: pod.uid,
          name: pod.name,
          namespace: pod.namespace,
          error: text,
        });
        if (entry.wanted) {
          entry.state = 'failed';
          entry.overdue = true;
          armRetry();
        } else {
          netns.close();
        }
        return startFailure(text);
      }
      if (entry.wanted) waiting.delete(pod.uid);
      else pods.stop(pod.uid);
      return ACK;
    });
    const settled = entry.attempt.then(() => {
      if (unsettled.get(pod.uid) === settled) unsettled.delete(pod.uid);
      report();
    });
    unsettled.set(pod.uid, settled);
  }

  /** The outcome of a start, or a nack when it takes too long. The start itself goes on. */
  function answerInTime(entry: Waiting): Promise<Outcome> {
    return new Promise((resolve) => {
      const cancel = timers.after(ANSWER_MS, () => {
        entry.overdue = true;
        resolve(startFailure(`not done after ${ANSWER_MS / 1000} s, going on`));
      });
      entry.attempt.then((outcome) => {
        cancel();
        resolve(outcome);
      });
    });
  }

  function armRetry(): void {
    cancelRetry ??= timers.after(RETRY_MS, () => {
      cancelRetry = null;
      const failed = [...waiting.values()].filter(({ state }) => state === 'failed');
      // Each one queues for itself, so that a request waits for one start at most.
      for (const entry of failed) inOrder(() => retry(entry));
    });
  }

  async function retry(entry: Waiting): Promise<void> {
    if (!entry.wanted || entry.state !== 'failed') return;
    start(entry);
    await answerInTime(entry);
  }

  /** Takes a uid out of `waiting`. A start under way is undone when it settles. */
  function abandon(uid: string): void {
    const entry = waiting.get(uid);
    if (entry === undefined) return;
    entry.wanted = false;
    waiting.delete(uid);
    if (entry.state === 'failed') entry.netns.close();
  }

  function inOrder<T>(task: () => Promise<T>): Promise<T> {
    const result = queue.then(task);
    queue = result.catch(() => {});
    return result;
  }

  function readiness(): Readiness {
    if (snapshot === 'none') return 'disconnected';
    if (snapshot === 'receiving') return 'snapshot-pending';
    return [...waiting.values()].some(({ overdue }) => overdue) ? 'pods-pending' : 'ready';
  }

  function report(): void {
    const now = readiness();
    if (now === reported) return;
    reported = now;
    onReadiness(now);
  }
}

type AddRequest = Extract<WorkloadRequest, { kind: 'add' }>;

interface Waiting {
  readonly pod: PodInfo;
  readonly netns: NetnsHandle;
  state: 'starting' | 'failed';
  /** The outcome of the last start; does not reject. */
  attempt: Promise<Outcome>;
  /** It failed or took too long before, so the agent is not ready. A start that is merely under way does not count. */
  overdue: boolean;
  /** False once the pod was removed or replaced: a start under way is then undone. */
  wanted: boolean;
}

function release(netns: NetnsHandle | CulvertError | null): void {
  if (netns !== null && !(netns instanceof CulvertError)) netns.close();
}

const ACK: Outcome = { kind: 'ack' };

/** The wording is the incumbent's, for whoever searches the node agent's log for it. */
function startFailure(reason: string): Outcome {
  return { kind: 'nack', text: `failure to start proxy : ${reason}` };
}

function violation(text: string): Outcome {
  return { kind: 'violation', text };
}

function sameInfo(a: PodInfo, b: PodInfo): boolean {
  return a.name === b.name && a.namespace === b.namespace && a.serviceAccount === b.serviceAccount;
}
