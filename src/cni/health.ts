import { type HttpService, methodNotAllowed, NOT_FOUND, serveHttp } from '../admin/http-service.ts';
import type { Readiness } from '../admin/readiness.ts';
import type { Logger } from '../log/logger.ts';
import type { SocketAddress } from '../netns/address.ts';

/** `/healthz`: alive; `/readyz`: 200, or 503 with what is pending (spec node-07 §7.1). @throws CulvertError HTTP_BIND_FAILED */
export function serveHealth(options: {
  readonly readiness: Readiness;
  readonly addresses: readonly SocketAddress[];
  readonly log: Pick<Logger, 'warn'>;
}): Promise<HttpService> {
  return serveHttp({
    name: 'health',
    addresses: options.addresses,
    log: options.log,
    handle({ url, method }) {
      if (url.pathname !== '/healthz' && url.pathname !== '/readyz') return NOT_FOUND;
      if (method !== 'GET') return methodNotAllowed(['GET']);
      const pending = url.pathname === '/readyz' ? options.readiness.pending() : [];
      if (pending.length === 0) return { status: 200, body: 'ok\n' };
      return { status: 503, body: `not ready, pending: ${pending.join(', ')}\n` };
    },
  });
}
