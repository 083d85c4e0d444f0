/** Who is connected and how far, for `culvert status`. */
import type { ChangeLog } from './change-log.ts';
import type { ClientNode } from './node.ts';
import type { Watch } from './watch.ts';

/** Times are ISO 8601. */
export interface ClientStatus {
  /** The node id that the proxy gave itself. */
  readonly id: string;
  readonly namespace: string;
  readonly pod: string;
  /** Name of the Kubernetes node; '' when the proxy did not say it. */
  readonly node: string;
  /** Of the proxy's program; '' when it did not say it. */
  readonly version: string;
  /** `ip:port` */
  readonly address: string;
  readonly since: string;
  readonly types: readonly WatchStatus[];
}

export interface WatchStatus {
  readonly typeUrl: string;
  /** How many names were asked for; null when everything was. */
  readonly names: number | null;
  readonly sent: Progress | null;
  readonly acknowledged: Progress | null;
  /** For how long a response is without an answer, in ms; null when all are answered. */
  readonly unacknowledgedMs: number | null;
  /** Names that changed and have not been sent yet. */
  readonly waiting: number;
  readonly rejections: number;
  readonly lastRejection: { readonly at: string; readonly version: string; readonly reason: string } | null;
}

export interface Progress {
  readonly version: string;
  readonly at: string;
}

export function clientStatus(
  node: ClientNode | null,
  address: string,
  since: number,
  watches: Iterable<Watch>,
  changes: ChangeLog,
): ClientStatus {
  return {
    id: node?.id ?? '',
    namespace: node?.namespace ?? '',
    pod: node?.pod ?? '',
    node: node?.node ?? '',
    version: node?.version ?? '',
    address,
    since: timeOf(since),
    types: [...watches].map((watch) => watchStatus(watch, changes)),
  };
}

function watchStatus(watch: Watch, changes: ChangeLog): WatchStatus {
  const { type, wanted, sent, acknowledged, delivery, position, rejections, lastRejection } = watch;
  return {
    typeUrl: type.url,
    names: wanted.kind === 'named' ? wanted.asked.size : null,
    sent: sent && { ...sent, at: timeOf(sent.at) },
    acknowledged: acknowledged && { ...acknowledged, at: timeOf(acknowledged.at) },
    unacknowledgedMs: delivery.kind === 'sent' ? Math.round(performance.now() - delivery.at) : null,
    waiting: position < changes.head ? changes.since(position)[type.kind].size : 0,
    rejections,
    lastRejection: lastRejection && { ...lastRejection, at: timeOf(lastRejection.at) },
  };
}

function timeOf(ms: number): string {
  return new Date(ms).toISOString();
}
