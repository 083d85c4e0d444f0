import type { Setting } from '../setting.ts';
import { cpuQuantity, integer, workerRequest } from '../values.ts';

export const threadsSettings = {
  workerThreads: {
    env: 'ZTUNNEL_WORKER_THREADS',
    type: workerRequest,
    default: null,
    otherwise:
      '`concurrency` of the proxy configuration (0 is one per CPU); else the CPU limit or, if larger, the request; else a quarter of the CPUs, the request or 2, whichever is largest',
    unit: 'threads',
    meaning: 'Data-plane threads: a number, a percentage of the CPUs (rounded up), or 0 for one per CPU.',
    why: 'A quarter of a node carries its traffic; a limit is there to be used.',
    dump: null,
  },
  resourceCpuLimit: {
    env: 'ZTUNNEL_RESOURCE_CPU_LIMIT',
    type: cpuQuantity,
    default: null,
    otherwise: 'no limit',
    unit: 'CPUs',
    meaning: 'CPU limit of the agent’s container as its manifest states it, rounded up. 0 is no limit.',
    why: 'Takes the place of the number of CPUs of the node.',
    input: true,
  },
  resourceCpuRequest: {
    env: 'ZTUNNEL_RESOURCE_CPU_REQUEST',
    type: cpuQuantity,
    default: null,
    otherwise: 'none',
    unit: 'CPUs',
    meaning: 'CPU request of the agent’s container, rounded up.',
    why: 'At least as many threads as CPUs that are set aside.',
    input: true,
  },
  cpuLimit: {
    env: 'ZTUNNEL_CPU_LIMIT',
    type: integer(1, 65535),
    default: null,
    otherwise: 'the CPUs that this process may use',
    unit: 'CPUs',
    meaning: 'CPU limit as the downward API gives it; without a limit that is the number of CPUs of the node.',
    why: 'Cannot be told from "no limit", so it only takes the place of the number of CPUs.',
    input: true,
  },
} as const satisfies Record<string, Setting>;
