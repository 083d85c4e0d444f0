import type { Logger } from '../log/logger.ts';
import type { SocketAddress } from '../netns/address.ts';
import { type HttpService, NOT_FOUND, serveHttp } from './http-service.ts';

const PATHS = ['/metrics', '/stats/prometheus'];

/** `/metrics` and `/stats/prometheus` for scrapers (spec §14.2). @throws CulvertError HTTP_BIND_FAILED */
export function serveMetrics(options: {
  /** The exposition in pieces; `MetricsHub.scrape` */
  scrape: () => Promise<Iterable<string>>;
  addresses: readonly SocketAddress[];
  log: Logger;
}): Promise<HttpService> {
  return serveHttp({
    name: 'metrics',
    addresses: options.addresses,
    log: options.log,
    async handle({ url, headers }) {
      if (!PATHS.includes(url.pathname)) return NOT_FOUND;
      return {
        status: 200,
        contentType: contentTypeFor(headers.accept ?? ''),
        body: await options.scrape(),
        compress: true,
      };
    },
  });
}

/** The body is the same; only what it is called depends on the scraper. */
function contentTypeFor(accept: string): string {
  const types = accept.split(',').map((entry) => entry.split(';')[0]!.trim().toLowerCase());
  return types.includes('application/openmetrics-text')
    ? 'application/openmetrics-text;charset=utf-8;version=1.0.0'
    : 'text/plain; charset=utf-8';
}
