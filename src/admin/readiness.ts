import type { Logger } from '../log/logger.ts';
import type { SocketAddress } from '../netns/address.ts';
import { type HttpService, methodNotAllowed, NOT_FOUND, serveHttp } from './http-service.ts';

/** What the agent still waits for before it is ready. Names are the incumbent's where it has the task (spec §14.1). */
export interface Readiness {
  /** Adds a task; ready only when every returned function was called. A task may come back later. */
  wait(task: string): () => void;
  /** Names of the open tasks, sorted. */
  pending(): string[];
}

export function createReadiness(): Readiness {
  const open = new Set<{ task: string }>();
  return {
    wait(task) {
      const entry = { task };
      open.add(entry);
      return () => open.delete(entry);
    },
    pending: () => [...new Set([...open].map(({ task }) => task))].sort(),
  };
}

/** `/healthz/ready`: 200, or 500 with what is pending (spec §14.1). @throws CulvertError HTTP_BIND_FAILED */
export function serveReadiness(options: {
  readiness: Readiness;
  addresses: readonly SocketAddress[];
  log: Logger;
}): Promise<HttpService> {
  return serveHttp({
    name: 'readiness',
    addresses: options.addresses,
    log: options.log,
    handle({ url, method }) {
      if (url.pathname !== '/healthz/ready') return NOT_FOUND;
      if (method !== 'GET') return methodNotAllowed(['GET']);
      const pending = options.readiness.pending();
      if (pending.length === 0) return { status: 200, body: 'ready\n' };
      return { status: 500, body: `not ready, pending: ${pending.join(', ')}\n` };
    },
  });
}
