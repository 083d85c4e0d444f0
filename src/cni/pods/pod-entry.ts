import type { NetnsHandle } from '../../netns/handle.ts';
import type { PodInfo } from '../../zds/types.ts';

/**
 * `absent`: nothing done yet, or nothing left. `announced`: an agent serves the pod. `captured`: the rules are in place.
 * `enabled`: the annotation says so. `lost`: enrolled, but its namespace has not been found.
 */
export type PodState = 'absent' | 'announced' | 'captured' | 'enabled' | 'removing' | 'lost';

/** What is known and done about one pod. */
export class PodEntry {
  readonly pod: PodInfo;
  state: PodState = 'absent';
  netns: NetnsHandle | null = null;
  containerId: string | null = null;
  ips: readonly string[] = [];
  /** The runtime has told the namespace, so that it need not be looked for. */
  fromRuntime = false;
  /** It was enrolled by an earlier node agent, which may have used other means. */
  resumed = false;
  /** The annotation was written. */
  marked = false;
  /** A plugin waits for the pod. */
  starting = false;
  /** Its last sandbox has ended; there is nothing to look for until there is a new one. */
  released = false;
  /** Agents and node know that it has ended. */
  cleared = false;
  /** Namespace in which an agent serves it. */
  announcedIn: string | null = null;
  /** Namespace and rules that were last set. */
  rulesAre: string | null = null;
  #waiters: Waiter[] = [];
  #hostIps: readonly string[] | null = null;

  constructor(pod: PodInfo) {
    this.pod = pod;
  }

  take(netns: NetnsHandle): void {
    if (this.netns !== netns) this.netns?.close();
    this.netns = netns;
    this.released = false;
    this.cleared = false;
  }

  admit(containerId: string, netns: NetnsHandle, ips: readonly string[]): void {
    this.take(netns);
    this.containerId = containerId;
    this.ips = [...ips];
    // A runtime that tells no addresses leaves them to the API, and the namespace to the search for them.
    this.fromRuntime = ips.length > 0;
    this.starting = true;
  }

  release(): void {
    this.letGo();
    this.released = true;
    this.fromRuntime = false;
    this.starting = false;
    this.containerId = null;
    this.undone();
    this.state = 'absent';
  }

  /** Nothing of what was done can be relied on. */
  undone(): void {
    this.announcedIn = null;
    this.rulesAre = null;
  }

  letGo(): void {
    this.netns?.close();
    this.netns = null;
    this.#hostIps = null;
  }

  wait(): Promise<void> {
    return new Promise((resolve, reject) => this.#waiters.push({ resolve, reject }));
  }

  hasWaiters(): boolean {
    return this.#waiters.length > 0;
  }

  takeWaiters(): Waiter[] {
    const waiters = this.#waiters;
    this.#waiters = [];
    return waiters;
  }

  markHostIps(): void {
    this.#hostIps = this.ips;
  }

  hasIps(): boolean {
    return this.#hostIps !== null && sameIps(this.#hostIps, this.ips);
  }
}

export function sameIps(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((ip) => b.includes(ip));
}

interface Waiter {
  resolve(): void;
  reject(error: unknown): void;
}
