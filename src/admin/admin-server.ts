import type { Logger } from '../log/logger.ts';
import type { Counter } from '../metrics/registry.ts';
import type { SocketAddress } from '../netns/address.ts';
import { rejectionOf } from './browser-guard.ts';
import { type Handler, type HttpService, methodNotAllowed, NOT_FOUND, type Reply, serveHttp } from './http-service.ts';

/** One path of the admin port. The table of them is also its front page. */
export interface AdminRoute {
  readonly path: string;
  /** null: any */
  readonly methods: readonly string[] | null;
  /** What it does, for the front page. */
  readonly purpose: string;
  /** Sent with a refused method. */
  readonly usage?: string;
  readonly handle: Handler;
}

export interface AdminServerOptions {
  readonly routes: readonly AdminRoute[];
  /** Heading of the front page. */
  readonly title?: string;
  /** Listens on 127.0.0.1 and, where there is IPv6, ::1. 0 takes a free port. */
  readonly port: number;
  /** Counts refused requests by reason: family ADMIN_REJECTS. */
  readonly rejects: Counter;
  readonly log: Logger;
}

/** The admin port (spec §14.3), for this machine only. @throws CulvertError HTTP_BIND_FAILED */
export function serveAdmin({
  routes,
  title = 'culvert agent',
  port,
  rejects,
  log,
}: AdminServerOptions): Promise<HttpService> {
  const byPath = new Map(routes.map((route) => [route.path, route]));
  const addresses: readonly SocketAddress[] = [
    { ip: '127.0.0.1', port },
    { ip: '::1', port },
  ];
  return serveHttp({
    name: 'admin',
    addresses,
    log,
    handle(request) {
      const rejection = rejectionOf(request);
      if (rejection !== null) {
        rejects.add(1, rejection);
        log.warn('admin', 'request refused', { reason: rejection, host: request.headers.host });
        return { status: 403, body: `refused: ${rejection}\n` };
      }
      if (request.url.pathname === '/') return frontPage(title, routes);
      const route = byPath.get(request.url.pathname);
      if (route === undefined) return NOT_FOUND;
      if (route.methods !== null && !route.methods.includes(request.method)) {
        return methodNotAllowed(route.methods, route.usage);
      }
      return route.handle(request);
    },
  });
}

function frontPage(title: string, routes: readonly AdminRoute[]): Reply {
  const rows = routes.map(({ path, methods, purpose }) => {
    const name = methods === null || methods.includes('GET') ? `<a href="${path}">${path}</a>` : path;
    return `<tr><td>${name}</td><td>${methods?.join(', ') ?? 'any'}</td><td>${purpose}</td></tr>`;
  });
  const body = [
    '<!doctype html>',
    '<html lang="en">',
    `<head><meta charset="utf-8"><title>${title}</title></head>`,
    '<body>',
    `<h1>${title}</h1>`,
    '<table>',
    '<tr><th>path</th><th>method</th><th>what it does</th></tr>',
    ...rows,
    '</table>',
    '</body>',
    '</html>',
    '',
  ].join('\n');
  return { status: 200, contentType: 'text/html; charset=utf-8', body };
}
