/** Connections made and taken inside pods, for tests that ask where a connection ends up. */
import { setTimeout as delay } from 'node:timers/promises';
import {
  type AcceptedSocket,
  acceptTcp,
  closeFd,
  connectTcp,
  type Listener,
  type ListenOptions,
  listenTcp,
} from '../../native/netns.ts';
import { PATIENCE_MS } from './patience.ts';

export const plainListener: ListenOptions = {
  mark: 0,
  keepalive: null,
  userTimeoutMs: 0,
  reusePort: true,
  transparent: 'no',
  backlog: 128,
  dualStack: true,
};

/** As the agent listens in a pod. */
export const agentListener: ListenOptions = { ...plainListener, mark: 1337, transparent: 'must' };

export const unmarked = { mark: 0, keepalive: null, userTimeoutMs: 0 };
export const marked = { ...unmarked, mark: 1337 };

/** Listeners by name, closed together. */
export function openListeners<Name extends string>(
  netns: number,
  ports: Readonly<Record<Name, { port: number; options: ListenOptions }>>,
): { readonly fds: Readonly<Record<Name, number>>; close(): void } {
  const listeners = Object.entries<{ port: number; options: ListenOptions }>(ports).map(
    ([name, { port, options }]): [string, Listener] => [name, listenTcp(netns, '::', port, options)],
  );
  return {
    fds: Object.fromEntries(listeners.map(([name, { fd }]) => [name, fd])) as Record<Name, number>,
    close() {
      for (const [, { fd }] of listeners) closeFd(fd);
    },
  };
}

/** Connects and says which of the listeners got the connection; 'none' when none did within the patience. */
export async function whoAccepts(
  listeners: Readonly<Record<string, number>>,
  from: { netns: number; ip: string; port: number; source?: string; mark?: boolean },
): Promise<{ listener: string; accepted: AcceptedSocket | null }> {
  let fd: number;
  try {
    ({ fd } = connectTcp(from.netns, from.ip, from.port, from.source ?? null, from.mark ? marked : unmarked));
  } catch {
    return { listener: 'none', accepted: null };
  }
  try {
    // Nothing here can wait for several descriptors, so it looks at each in turn.
    for (const end = performance.now() + PATIENCE_MS; performance.now() < end; await delay(2)) {
      for (const [listener, listenFd] of Object.entries(listeners)) {
        const accepted = acceptTcp(listenFd, true);
        if (accepted === null) continue;
        closeFd(accepted.fd);
        return { listener, accepted };
      }
    }
    return { listener: 'none', accepted: null };
  } finally {
    closeFd(fd);
  }
}
