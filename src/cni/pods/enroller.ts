import { setTimeout as delay } from 'node:timers/promises';
import { CulvertError, messageOf } from '../../errors.ts';
import type { Logger } from '../../log/logger.ts';
import type { NetnsHandle } from '../../netns/handle.ts';
import type { PodInfo } from '../../zds/types.ts';
import type { HostRules } from '../host/host-rules.ts';
import { type PodObject, REDIRECTION } from '../kube/objects.ts';
import type { RulesBackend } from '../rules/backend.ts';
import type { PodRules } from '../rules/pod-rules.ts';
import { PodEntry, type PodState, sameIps } from './pod-entry.ts';
import { createWorkQueue } from './work-queue.ts';

/**
 * Takes pods into the mesh and out of it. For each pod there is one line of work: it compares what should be with what
 * is and does what is missing, each step harmless when repeated. An entry stays until the pod is wholly out.
 *
 * Into the mesh: the node's probe rule, the agent's sockets in the pod, the pod's rules, the annotation; in this order no
 * connection of a running pod meets a redirection without a listener, and no probe is judged as traffic. Out of it: the
 * other way round.
 */
export interface Enroller {
  /** Looks at a pod again, because something about it has changed. */
  changed(uid: string): void;
  /** Looks at every pod that is not wholly enrolled: an agent has connected. */
  retry(): void;
  /**
   * Knows a pod that was enrolled before this process started; its namespace may not have been found. It is in the
   * agent's snapshots at once.
   */
  resume(pod: PodObject, netns: NetnsHandle | null, upToDate: boolean): void;
  /**
   * Enrols a pod that is about to start, and resolves when it may. The handle is the enroller's.
   * @throws CulvertError what the failed step says; the pod is tried again when asked for again
   */
  admit(pod: PodObject, sandbox: Sandbox): Promise<void>;
  /** Lets go of the namespaces of sandboxes that have ended. */
  release(isEnded: (containerId: string) => boolean): void;
  states(): Iterable<{ readonly pod: PodInfo; readonly state: PodState }>;
  /**
   * Takes every pod out, for good. Resolves with the pods that could not be.
   * @param patienceMs for how long what fails is tried again, in ms
   */
  leaveAll(patienceMs?: number): Promise<string[]>;
  /** Waits for what is under way and lets go of all handles; pods stay as they are. */
  close(): Promise<void>;
}

/** What the runtime has made for a pod. */
export interface Sandbox {
  readonly containerId: string;
  readonly netns: NetnsHandle;
  /** Canonical. */
  readonly ips: readonly string[];
}

/** What should be. `gone`: the pod does not exist, or has ended. */
export type Desired =
  | { readonly kind: 'enrolled'; readonly pod: PodObject; readonly rules: PodRules }
  | { readonly kind: 'out'; readonly pod: PodObject }
  | { readonly kind: 'gone' }
  /** It cannot be told now; nothing changes. */
  | { readonly kind: 'unknown' };

export interface EnrollerOptions {
  desired(uid: string): Desired;
  readonly rules: RulesBackend;
  readonly zds: {
    add(pod: PodInfo, netns: NetnsHandle | null): Promise<void>;
    seed(pod: PodInfo, netns: NetnsHandle | null): void;
    remove(uid: string): Promise<void>;
  };
  readonly host: Pick<HostRules, 'seed' | 'set' | 'remove'>;
  /** Finds namespaces of running pods. Requests that come together are answered by one search. */
  discover(pod: PodObject): Promise<NetnsHandle | null>;
  /** Writes the status annotation; null removes it. A pod that is gone is no error. */
  annotate(pod: PodInfo, value: 'enabled' | 'pending' | null): Promise<void>;
  readonly log: Pick<Logger, 'info' | 'warn' | 'debug'>;
  readonly onStep?: (step: 'enrol' | 'remove', result: 'ok' | 'error', ms: number) => void;
  /** Pause before a namespace that was not found is looked for again, in ms. */
  readonly rescanMs?: number;
}

/** Most of a pod's work is waiting for the API server and for agents; with iptables, for programs on the node. */
const CONCURRENCY = 8;
const RESCAN_MS = 10_000;
/** Together with asking why the node agent ends, much less than the minute that its DaemonSet grants. */
const LEAVE_MS = 10_000;
const LEAVE_AGAIN_MS = 500;

export function createEnroller(options: EnrollerOptions): Enroller {
  const { desired, rules: backend, zds, host, discover, annotate, log, onStep = () => {} } = options;
  const rescanMs = options.rescanMs ?? RESCAN_MS;
  const entries = new Map<string, PodEntry>();
  const queue = createWorkQueue({
    concurrency: CONCURRENCY,
    work,
    onError(uid, error, retryMs) {
      const entry = entries.get(uid);
      const pod = entry === undefined ? uid : `${entry.pod.namespace}/${entry.pod.name}`;
      log.warn('pods', 'a pod is not as it should be', { pod, error: messageOf(error), retry_ms: retryMs });
    },
  });
  let leaving = false;

  function entryOf(pod: PodObject): PodEntry {
    let entry = entries.get(pod.uid);
    if (entry === undefined) {
      entry = new PodEntry(infoOf(pod));
      entries.set(pod.uid, entry);
    }
    return entry;
  }

  async function work(uid: string): Promise<void> {
    const entry = entries.get(uid);
    const waiters = entry?.takeWaiters() ?? [];
    const started = performance.now();
    const goal = leaving ? outOf(uid) : desired(uid);
    const step = goal.kind === 'enrolled' ? 'enrol' : 'remove';
    try {
      const did = await reach(uid, goal, waiters.length > 0);
      if (did) onStep(step, 'ok', performance.now() - started);
      for (const { resolve } of waiters) resolve();
    } catch (error) {
      onStep(step, 'error', performance.now() - started);
      for (const { reject } of waiters) reject(error);
      throw error;
    }
  }

  /** Returns whether there was anything to do. */
  async function reach(uid: string, goal: Desired, mustDecide: boolean): Promise<boolean> {
    const entry = entries.get(uid);
    if (goal.kind === 'unknown') {
      if (!mustDecide) return false;
      // A pod that waits to start must not start undecided.
      throw new CulvertError('POD_UNDECIDED', 'it is not known yet whether the pod belongs into the mesh');
    }
    if (goal.kind === 'gone') return entry !== undefined && (await forget(uid, entry));
    if (goal.kind === 'enrolled') return await enrol(goal.pod, goal.rules);
    const marked = goal.pod.annotations[REDIRECTION] !== undefined || entry?.marked === true;
    return entry === undefined && !marked ? false : await takeOut(goal.pod, marked);
  }

  async function enrol(pod: PodObject, rules: PodRules): Promise<boolean> {
    const before = entries.get(pod.uid);
    if (before === undefined && pod.ips.length === 0) return false;
    const entry = entryOf(pod);
    if (entry.released) {
      const cleared = await clearSandbox(pod.uid, entry);
      // Other addresses are those of a new sandbox, which the runtime has not told about.
      if (pod.ips.length === 0 || sameIps(pod.ips, entry.ips)) return cleared;
    }
    if (!(await findNamespace(entry, pod))) return false;
    // A handle of its own: the runtime may report a new sandbox meanwhile, and a descriptor that was closed be reused.
    const netns = entry.netns!.duplicate();
    try {
      return await enrolIn(netns, entry, pod, rules);
    } finally {
      netns.close();
    }
  }

  async function enrolIn(netns: NetnsHandle, entry: PodEntry, pod: PodObject, rules: PodRules): Promise<boolean> {
    const wanted = `${netns.key} ${JSON.stringify(rules)}`;
    const marked = pod.annotations[REDIRECTION] === 'enabled';
    if (entry.state === 'enabled' && entry.rulesAre === wanted && marked && entry.hasIps()) return false;
    const steps = [
      () => host.set(pod.uid, entry.ips),
      () => announce(netns, entry, pod),
      () => capture(netns, entry, pod, rules, wanted),
    ];
    if (entry.starting) await allOf(steps);
    else for (const step of steps) await step();
    // Meanwhile the sandbox has ended, or there is a new one: the work that this has asked for follows.
    if (entry.netns?.key !== netns.key) return true;
    entry.markHostIps();
    if (entry.starting) {
      // The pod need not wait for the API server; the annotation follows by itself.
      entry.starting = false;
      queue.add(pod.uid);
      return true;
    }
    if (!marked) {
      // Before it is known to be: a watch that lags must not hide from its removal what was written.
      entry.marked = true;
      await annotate(entry.pod, 'enabled');
    }
    entry.state = 'enabled';
    return true;
  }

  async function announce(netns: NetnsHandle, entry: PodEntry, pod: PodObject): Promise<void> {
    if (entry.announcedIn === netns.key) return;
    try {
      await zds.add(entry.pod, netns.duplicate());
    } catch (error) {
      if (!entry.starting) await markPending(entry, pod);
      throw error;
    }
    entry.announcedIn = netns.key;
    if (entry.state !== 'captured') entry.state = 'announced';
  }

  async function capture(
    netns: NetnsHandle,
    entry: PodEntry,
    pod: PodObject,
    rules: PodRules,
    wanted: string,
  ): Promise<void> {
    if (entry.rulesAre === wanted) return;
    await backend.apply(netns.fd, rules);
    // Ours first, so that there is no moment without rules.
    if (entry.resumed) await backend.removeForeign(netns.fd);
    entry.resumed = false;
    entry.rulesAre = wanted;
    entry.state = 'captured';
    log.info('pods', 'pod captured', { pod: nameOf(pod), netns: netns.key });
  }

  /** The agents let go of a sandbox that has ended; the pod may get another. */
  async function clearSandbox(uid: string, entry: PodEntry): Promise<boolean> {
    if (entry.cleared) return false;
    // An enrolment that was under way has noted what it did in a namespace whose number may come again.
    entry.undone();
    entry.state = 'absent';
    await zds.remove(uid);
    await host.remove(uid);
    // Not of a new sandbox that the runtime has told about meanwhile.
    if (entry.released) entry.cleared = true;
    log.info('pods', 'sandbox has ended', { pod: `${entry.pod.namespace}/${entry.pod.name}` });
    return true;
  }

  /** Returns false when the namespace is not known yet; it is then looked for again. */
  async function findNamespace(entry: PodEntry, pod: PodObject): Promise<boolean> {
    // Other addresses than before mean another sandbox, unless the runtime has told about it.
    const moved = pod.ips.length > 0 && !entry.fromRuntime && !sameIps(pod.ips, entry.ips);
    if (entry.netns !== null && !moved) return true;
    if (pod.ips.length === 0) return false;
    const netns = await discover(pod);
    if (netns === null) {
      if (entry.netns !== null) return true;
      entry.state = entry.state === 'absent' ? 'absent' : 'lost';
      log.debug('pods', 'namespace not found, looking again later', { pod: nameOf(pod) });
      queue.addLater(pod.uid, rescanMs);
      return false;
    }
    entry.ips = [...pod.ips];
    entry.take(netns);
    return true;
  }

  async function markPending(entry: PodEntry, pod: PodObject): Promise<void> {
    if (pod.annotations[REDIRECTION] === 'pending') return;
    entry.marked = true;
    try {
      await annotate(infoOf(pod), 'pending');
    } catch (error) {
      // What it was to tell about is the error that counts.
      log.warn('pods', 'cannot annotate a pod', { pod: nameOf(pod), error: messageOf(error) });
    }
  }

  async function takeOut(pod: PodObject, marked: boolean): Promise<boolean> {
    const known = entries.has(pod.uid);
    const entry = entryOf(pod);
    // One that only its annotation tells of was enrolled by somebody before.
    entry.resumed ||= !known;
    entry.state = 'removing';
    if (entry.netns === null && pod.ips.length > 0) {
      const netns = await discover(pod);
      if (netns !== null) entry.take(netns);
      else if (!entry.released && !pod.hostNetwork) {
        // It may have its rules, and would be cut off without its listener.
        throw new CulvertError('NETNS_NOT_FOUND', 'its namespace is not found, so that its rules cannot be removed');
      }
    }
    const netns = entry.netns?.duplicate() ?? null;
    // Noted before: a pod that is wanted again after half of this gets everything anew.
    entry.undone();
    try {
      if (netns !== null) {
        await backend.remove(netns.fd);
        if (entry.resumed) await backend.removeForeign(netns.fd);
      }
    } finally {
      netns?.close();
    }
    await host.remove(pod.uid);
    await zds.remove(pod.uid);
    if (marked) await annotate(entry.pod, null);
    drop(pod.uid, entry);
    log.info('pods', 'pod taken out of the mesh', { pod: nameOf(pod) });
    return true;
  }

  async function forget(uid: string, entry: PodEntry): Promise<boolean> {
    entry.state = 'removing';
    entry.undone();
    await zds.remove(uid);
    await host.remove(uid);
    drop(uid, entry);
    log.info('pods', 'pod has ended', { pod: `${entry.pod.namespace}/${entry.pod.name}` });
    return true;
  }

  function drop(uid: string, entry: PodEntry): void {
    entry.state = 'absent';
    // What the runtime has said meanwhile is about a new sandbox.
    if (entry.hasWaiters()) return;
    entry.letGo();
    entries.delete(uid);
  }

  function outOf(uid: string): Desired {
    const now = desired(uid);
    return now.kind === 'enrolled' ? { kind: 'out', pod: now.pod } : now;
  }

  return {
    changed: (uid) => queue.add(uid),
    retry() {
      for (const [uid, entry] of entries) if (entry.state !== 'enabled') queue.add(uid);
    },
    resume(pod, netns, upToDate) {
      const entry = entryOf(pod);
      entry.ips = [...pod.ips];
      entry.resumed = true;
      entry.state = netns === null ? 'lost' : 'enabled';
      if (netns !== null) {
        entry.take(netns);
        entry.announcedIn = netns.key;
        if (upToDate) {
          const goal = desired(pod.uid);
          if (goal.kind === 'enrolled') entry.rulesAre = `${netns.key} ${JSON.stringify(goal.rules)}`;
        }
      }
      host.seed(pod.uid, pod.ips);
      zds.seed(entry.pod, netns?.duplicate() ?? null);
      queue.add(pod.uid);
    },
    admit(pod, { containerId, netns, ips }) {
      const entry = entryOf(pod);
      entry.admit(containerId, netns, ips);
      const done = entry.wait();
      queue.add(pod.uid);
      return done;
    },
    release(isEnded) {
      for (const [uid, entry] of entries) {
        if (entry.containerId === null || !isEnded(entry.containerId)) continue;
        entry.release();
        queue.add(uid);
      }
    },
    *states() {
      for (const { pod, state } of entries.values()) yield { pod, state };
    },
    async leaveAll(patienceMs = LEAVE_MS) {
      const deadline = performance.now() + patienceMs;
      leaving = true;
      for (;;) {
        for (const uid of entries.keys()) queue.add(uid);
        await queue.idle();
        const timeLeft = deadline - performance.now();
        if (entries.size === 0 || timeLeft <= 0) break;
        // What has failed comes again by itself, but perhaps too late: it may have failed many times before.
        await delay(Math.min(LEAVE_AGAIN_MS, timeLeft));
      }
      await queue.close();
      return [...entries.values()].map(({ pod }) => nameOf(pod));
    },
    async close() {
      await queue.close();
      for (const entry of entries.values()) entry.letGo();
      entries.clear();
    },
  };
}

/** Side by side: no program of a pod that is about to start could notice the order. Waits for all, then fails with the first. */
async function allOf(steps: readonly (() => Promise<void>)[]): Promise<void> {
  const outcomes = await Promise.allSettled(steps.map((step) => step()));
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
}

function infoOf({ uid, name, namespace, serviceAccount }: PodObject): PodInfo {
  return { uid, name, namespace, serviceAccount };
}

function nameOf({ namespace, name }: Pick<PodObject, 'namespace' | 'name'>): string {
  return `${namespace}/${name}`;
}

/** Why a pod did not start, in words for the events of the pod. */
export function explainAdmission(error: unknown): string {
  if (error instanceof CulvertError && error.code === 'ZDS_NO_AGENT') {
    return 'no agent is connected to the node agent: look at the culvert-agent (or ztunnel) pod of this node';
  }
  return messageOf(error);
}
