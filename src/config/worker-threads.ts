import type { WorkerRequest } from './values.ts';

/** What decides how many data-plane threads there are; CPUs may be fractions, null is "not given". */
export interface WorkerThreadFacts {
  readonly requested: WorkerRequest | null;
  readonly concurrency: number | null;
  readonly resourceLimit: number | null;
  readonly resourceRequest: number | null;
  readonly cpuLimit: number | null;
  readonly logicalCpus: number;
}

/** Number of data-plane threads, at least 1 (§15.1 "Worker default"). Fractions of a CPU are rounded up. */
export function workerThreads(facts: WorkerThreadFacts): number {
  // Kubernetes takes a limit of 0 for no limit.
  const limit = facts.resourceLimit === null || facts.resourceLimit === 0 ? null : Math.ceil(facts.resourceLimit);
  const cpus = limit ?? facts.cpuLimit ?? facts.logicalCpus;
  if (facts.requested !== null) return fromRequest(facts.requested, cpus);
  if (facts.concurrency !== null) return facts.concurrency === 0 ? cpus : facts.concurrency;
  const request = Math.ceil(facts.resourceRequest ?? 0);
  return limit === null ? Math.max(Math.ceil(cpus / 4), request, 2) : Math.max(limit, request);
}

function fromRequest(requested: WorkerRequest, cpus: number): number {
  switch (requested.kind) {
    case 'count':
      return requested.threads;
    case 'all':
      return cpus;
    case 'percent':
      return Math.max(1, Math.ceil((cpus * requested.percent) / 100));
  }
}
