import { setTimeout as delay } from 'node:timers/promises';
import { messageOf } from '../errors.ts';
import { isConflict, isNotFound, type KubeApi } from '../kube/api.ts';
import { fields, metadataOf, text } from '../kube/object.ts';
import type { Logger } from '../log/logger.ts';

/** Which of several replicas writes. All others only read. */
export interface Lease {
  /**
   * True only while no other replica can hold it. Ask right before each write; it ends by the clock when it cannot be
   * renewed. Writes name the version that they replace as well, for one that is still on its way when the lease ends.
   */
  held(): boolean;
  onChange(listener: (held: boolean) => void): void;
  /** Gives it back, so that another replica need not wait for its end. */
  close(): Promise<void>;
}

export interface LeaseOptions {
  readonly api: Pick<KubeApi, 'get' | 'create' | 'replace'>;
  readonly namespace: string;
  readonly name: string;
  /** Unique to this process, also among those that come after it in the same pod. */
  readonly holder: string;
  readonly log: Pick<Logger, 'info' | 'warn'>;
  /** How long a holder that is not heard of keeps it, in ms; a whole number of seconds. */
  readonly durationMs?: number;
  readonly random?: () => number;
}

/**
 * A lease of Kubernetes (coordination.k8s.io/v1), as other controllers use it. Only the own clock counts, and only how
 * much time has passed on it: nodes need not agree on the time.
 */
export function startLease(options: LeaseOptions): Lease {
  const { api, namespace, name, holder, log, durationMs = 15_000, random = Math.random } = options;
  const collection = `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases`;
  const listeners: ((held: boolean) => void)[] = [];
  /** Until when it is ours, by performance.now(). */
  let until = 0;
  let wasHeld = false;
  let closed = false;
  let complaint = '';
  /** The version that was seen last, and when it was new: another's lease ends that long after it. */
  let seen = { version: '', at: 0 };
  let loss: NodeJS.Timeout | undefined;
  let timer: NodeJS.Timeout | undefined;
  let working = work();

  return {
    held,
    onChange: (listener) => void listeners.push(listener),
    async close() {
      closed = true;
      clearTimeout(timer);
      const wasOurs = held();
      until = 0;
      tell();
      // An API server that does not answer must not hold up the end of the process.
      if (wasOurs) await Promise.race([working.then(giveBack), delay(GIVE_BACK_MS, null, { ref: false })]);
    },
  };

  function held(): boolean {
    return performance.now() < until;
  }

  async function work(): Promise<void> {
    try {
      await attempt();
      complaint = '';
    } catch (error) {
      if (messageOf(error) !== complaint) {
        log.warn('control', 'the lease cannot be taken or renewed: this replica writes nothing until it can', {
          lease: `${namespace}/${name}`,
          error: messageOf(error),
        });
      }
      complaint = messageOf(error);
    }
    tell();
    if (closed) return;
    const pause = durationMs * LOOK_SHARE * (1 + LOOK_JITTER * (2 * random() - 1));
    timer = setTimeout(() => {
      working = work();
    }, pause);
  }

  async function attempt(): Promise<void> {
    const started = performance.now();
    const object = await api.get(`${collection}/${name}`).catch((error: unknown) => {
      if (isNotFound(error)) return null;
      throw error;
    });
    if (closed || (object !== null && !isFree(object))) {
      if (!closed) until = 0;
      return;
    }
    try {
      const next = written(object, holder, durationMs);
      await (object === null ? api.create(collection, next) : api.replace(`${collection}/${name}`, next));
      if (!closed) until = started + durationMs * HELD_SHARE;
    } catch (error) {
      // Another was faster.
      if (!isConflict(error)) throw error;
    }
  }

  async function giveBack(): Promise<void> {
    try {
      const object = await api.get(`${collection}/${name}`);
      if (holderOf(object) === holder) await api.replace(`${collection}/${name}`, written(object, '', 1000));
    } catch (error) {
      log.info('control', 'the lease could not be given back, it ends by itself', { error: messageOf(error) });
    }
  }

  /** Whether it may be taken: it is ours already, given back, or not renewed for as long as it lasts. */
  function isFree(object: unknown): boolean {
    const version = text(metadataOf(object).resourceVersion);
    const now = performance.now();
    if (version !== seen.version) seen = { version, at: now };
    const { leaseDurationSeconds } = fields(fields(object).spec);
    const lasts = typeof leaseDurationSeconds === 'number' ? leaseDurationSeconds * 1000 : durationMs;
    return [holder, ''].includes(holderOf(object)) || now - seen.at > lasts;
  }

  function written(before: unknown, by: string, lastsMs: number): unknown {
    const { leaseTransitions, acquireTime } = fields(fields(before).spec);
    const now = `${new Date().toISOString().slice(0, -1)}000Z`;
    const isSame = before !== null && holderOf(before) === by;
    return {
      apiVersion: 'coordination.k8s.io/v1',
      kind: 'Lease',
      metadata: before === null ? { name, namespace } : metadataOf(before),
      spec: {
        holderIdentity: by,
        leaseDurationSeconds: lastsMs / 1000,
        acquireTime: isSame ? acquireTime : now,
        renewTime: now,
        leaseTransitions: (typeof leaseTransitions === 'number' ? leaseTransitions : 0) + (isSame || by === '' ? 0 : 1),
      },
    };
  }

  function tell(): void {
    clearTimeout(loss);
    const now = held();
    if (now) loss = setTimeout(tell, until - performance.now() + 1);
    if (now === wasHeld) return;
    wasHeld = now;
    log.info('control', now ? 'this replica writes now' : 'this replica does not write any more', {
      lease: `${namespace}/${name}`,
      holder,
    });
    for (const listener of listeners) listener(now);
  }
}

/** Where there is nobody to share with. */
export const alwaysHeld: Lease = { held: () => true, onChange() {}, async close() {} };

function holderOf(object: unknown): string {
  return text(fields(fields(object).spec).holderIdentity);
}

/** Of its duration: how often it is looked at and renewed, and how long it counts as ours after that. */
const LOOK_SHARE = 0.2;
const LOOK_JITTER = 0.2;
const HELD_SHARE = 2 / 3;
const GIVE_BACK_MS = 3000;
