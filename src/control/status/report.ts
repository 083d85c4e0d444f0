import type { X509Certificate } from 'node:crypto';
import type { AdminRoute } from '../../admin/admin-server.ts';
import { prettyJson } from '../../admin/pretty-json.ts';
import type { Readiness } from '../../admin/readiness.ts';
import { VERSION } from '../../version.ts';
import type { ClientStatus } from '../ads/status.ts';
import type { Lease } from '../lease.ts';
import type { Rejections } from '../rejections.ts';
import type { MeshResources } from '../resources.ts';

/** What `culvert status` shows, of one replica. Times are ISO 8601. */
export interface ControlStatus {
  readonly version: string;
  readonly replica: string;
  /** Whether this is the replica that writes. */
  readonly isLeader: boolean;
  /** What it waits for; empty when agents are served. */
  readonly pending: readonly string[];
  readonly resources: { readonly addresses: number; readonly policies: number };
  readonly clients: readonly ClientStatus[];
  readonly rejected: readonly RejectedStatus[];
  /** Kinds of objects, or files of a folder of them, that cannot be read, and why. */
  readonly problems: readonly string[];
  /** Trusted roots; the first one signs. */
  readonly roots: readonly RootStatus[];
}

export interface RejectedStatus {
  readonly kind: string;
  readonly object: string;
  readonly generation: number;
  readonly reason: string;
}

export interface RootStatus {
  readonly subject: string;
  readonly fingerprint: string;
  readonly notBefore: string;
  readonly notAfter: string;
}

export interface StatusSources {
  readonly replica: string;
  readonly readiness: Pick<Readiness, 'pending'>;
  readonly lease: Pick<Lease, 'held'>;
  readonly resources: Pick<MeshResources, 'counts'>;
  readonly clients: () => readonly ClientStatus[];
  readonly rejections: Pick<Rejections, 'list'>;
  readonly problems: () => readonly string[];
  readonly roots: () => readonly X509Certificate[];
}

export function statusRoute(sources: StatusSources): AdminRoute {
  return {
    path: '/status',
    methods: ['GET', 'HEAD'],
    purpose: 'What the control plane does: agents, versions they have, rejected objects, roots',
    handle: () => ({ status: 200, contentType: 'application/json', body: prettyJson(report(sources)), compress: true }),
  };
}

function report(sources: StatusSources): ControlStatus {
  return {
    version: VERSION,
    replica: sources.replica,
    isLeader: sources.lease.held(),
    pending: sources.readiness.pending(),
    resources: sources.resources.counts(),
    clients: sources.clients(),
    rejected: sources.rejections
      .list()
      .map(({ kind, key, generation, reason }) => ({ kind: kind.kind, object: key, generation, reason })),
    problems: sources.problems(),
    roots: sources.roots().map(({ subject, fingerprint256, validFromDate, validToDate }) => ({
      subject,
      fingerprint: fingerprint256,
      notBefore: validFromDate.toISOString(),
      notAfter: validToDate.toISOString(),
    })),
  };
}
