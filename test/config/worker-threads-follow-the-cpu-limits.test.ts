import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Environment } from '../../src/config/config.ts';
import { load } from './load.ts';

const LIMIT = 'ZTUNNEL_RESOURCE_CPU_LIMIT';
const REQUEST = 'ZTUNNEL_RESOURCE_CPU_REQUEST';
const THREADS = 'ZTUNNEL_WORKER_THREADS';
const concurrency = (n: number) => ({ PROXY_CONFIG: `concurrency: ${n}` });

// On a machine with eight CPUs.
const cases: [why: string, env: Environment, threads: number][] = [
  ['a quarter of the CPUs', {}, 2],
  ['a quarter of the downward API’s limit, rounded up', { ZTUNNEL_CPU_LIMIT: '17' }, 5],
  ['never below 2 without a limit', { ZTUNNEL_CPU_LIMIT: '1' }, 2],
  ['the request, when larger than a quarter', { [REQUEST]: '3' }, 3],
  ['the request rounded up', { [REQUEST]: '2500m' }, 3],
  ['an explicit limit is used whole', { [LIMIT]: '6' }, 6],
  ['an explicit limit below 2 too', { [LIMIT]: '1' }, 1],
  ['a fraction of a CPU is one thread', { [LIMIT]: '500m' }, 1],
  ['a limit is rounded up', { [LIMIT]: '1.5' }, 2],
  ['the request, when larger than the limit', { [LIMIT]: '2', [REQUEST]: '4' }, 4],
  ['a limit of 0 is none', { [LIMIT]: '0' }, 2],
  ['the explicit limit beats the downward API’s', { [LIMIT]: '3', ZTUNNEL_CPU_LIMIT: '16' }, 3],
  ['a number as asked', { [THREADS]: '7', [LIMIT]: '2' }, 7],
  ['0 is one per CPU', { [THREADS]: '0' }, 8],
  ['0 is one per CPU of the limit', { [THREADS]: '0', [LIMIT]: '3' }, 3],
  ['0 is one per CPU of the downward API’s limit', { [THREADS]: '0', ZTUNNEL_CPU_LIMIT: '5' }, 5],
  ['a percentage of the CPUs', { [THREADS]: '50%' }, 4],
  ['a percentage is rounded up', { [THREADS]: '30%' }, 3],
  ['a percentage is at least 1', { [THREADS]: '0%' }, 1],
  ['a percentage of the limit', { [THREADS]: '50%', [LIMIT]: '2' }, 1],
  ['concurrency as it is', concurrency(3), 3],
  ['concurrency 0 is one per CPU', concurrency(0), 8],
  ['concurrency beats the limits', { ...concurrency(1), [LIMIT]: '6', [REQUEST]: '6' }, 1],
  ['the variable beats concurrency', { ...concurrency(3), [THREADS]: '5' }, 5],
];

for (const [why, env, threads] of cases) {
  test(`${threads} worker threads: ${why}`, async () => {
    assert.equal((await load(env)).workerThreads, threads);
  });
}
