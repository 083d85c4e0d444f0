/**
 * What the mesh state costs at the size of a large cluster, and what is decided from it: look-ups, updates, plans, picks.
 * Times are of this thread's processor, so that other work of the machine counts as little as can be.
 */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { Pod } from '../src/filters/plane.ts';
import { formatCidr, parseCidr } from '../src/netns/address.ts';
import { Balancer } from '../src/routing/balancer.ts';
import { endpointsOf } from '../src/routing/endpoint-set.ts';
import { planOutbound } from '../src/routing/outbound.ts';
import type { OutboundPlan } from '../src/routing/plan.ts';
import type { MeshStore } from '../src/state/mesh-state.ts';
import { type RouteState, recordReads } from '../src/state/recorded-reads.ts';
import { createMeshState } from '../src/state/store.ts';
import { PlanCache } from '../src/worker/plan-cache.ts';
import { PlanRegistry } from '../src/worker/plan-registry.ts';
import type { Bench } from './harness/bench.ts';
import type { Figure } from './harness/figures.ts';
import { type GeneratedMesh, generateMesh } from './harness/generated-mesh.ts';

const WORKLOADS = 200_000;
const SERVICES = 10_000;
const LARGE_SERVICE = 10_000;
const CIDRS = 10_000;
/** Resources that a source applies at a time. */
const SLICE = 64;

/** The wanted figures; times in µs where not said otherwise. */
const WANTED = {
  lookup: 1,
  cidrLookup: 3,
  /** ms */
  slice: 20,
  /** s */
  fill: 3,
  /** bytes: 200 000 of them leave room for the rest in 300 MB */
  workload: 700,
  updates: 20_000,
  /** ms */
  plan: 5,
  pick: 1,
  hit: 0.5,
};

export const mesh: Bench = async ({ quick, progress }) => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const scale = quick ? 10 : 1;
  const generated = generateMesh(WORKLOADS / scale, SERVICES / scale);
  const store = createMeshState({ localNode: 'node-1' });

  collect();
  const heapBefore = process.memoryUsage().heapUsed;
  const filled = fill(store, generated);
  collect();
  const perWorkload = (process.memoryUsage().heapUsed - heapBefore) / generated.workloads;
  progress(`filled in ${filled.seconds.toFixed(2)} s, longest slice ${filled.longest.toFixed(1)} ms`);

  const round = 200_000;
  const ips = Array.from({ length: 5000 }, (_, index) => generated.ip((index * 37) % generated.workloads));
  const vips = Array.from({ length: 5000 }, (_, index) => generated.vip((index * 7) % generated.services));
  const workload = each(round, (index) => store.workloadByAddress('', ips[index % ips.length]!));
  const vip = each(round, (index) => store.serviceByVip('', vips[index % vips.length]!, 'namespace-1'));
  const cidrs = cidrLookups(round);
  progress(`look-ups: workload ${us(workload)}, VIP ${us(vip)}, CIDR VIP ${us(cidrs.ipv4)} and ${us(cidrs.ipv6)}`);
  const updates = 1e6 / update(store, generated, round / 10);
  progress(`${Math.round(updates)} endpoint updates/s`);
  const large = largeService();
  progress(`a plan of ${LARGE_SERVICE} endpoints: ${large.plan.toFixed(2)} ms, pick ${us(large.pick)}`);
  const hit = cacheHit(round);

  const text = `${generated.workloads} workloads in ${generated.services} services`;
  return [
    figure(`mesh, ${text}: applied`, `${filled.seconds.toFixed(2)} s of CPU`, filled.seconds, 's', WANTED.fill),
    figure(`mesh, longest of ${SLICE} resources`, ms(filled.longest), filled.longest, 'ms', WANTED.slice),
    figure(
      'mesh, heap per workload, all told',
      `${perWorkload.toFixed(0)} bytes`,
      perWorkload,
      'bytes',
      WANTED.workload,
    ),
    figure('mesh, workload by address', us(workload), workload, 'µs', WANTED.lookup),
    figure('mesh, service by VIP', us(vip), vip, 'µs', WANTED.lookup),
    figure(
      `mesh, service by CIDR VIP, ${CIDRS} blocks`,
      `IPv4 ${us(cidrs.ipv4)}, IPv6 ${us(cidrs.ipv6)}`,
      Math.max(cidrs.ipv4, cidrs.ipv6),
      'µs',
      WANTED.cidrLookup,
    ),
    {
      what: 'mesh, endpoint updates',
      measured: `${Math.round(updates)}/s`,
      value: updates,
      printed: `${Math.round(updates)}/s`,
      bound: { atLeast: WANTED.updates },
    },
    figure(
      `mesh, first plan of ${LARGE_SERVICE} endpoints`,
      `made ${ms(large.made)}, crossing threads ${ms(large.crossed)}`,
      large.plan,
      'ms',
      WANTED.plan,
    ),
    figure('mesh, pick of its endpoints', us(large.pick), large.pick, 'µs', WANTED.pick),
    figure('mesh, plan cache hit', us(hit), hit, 'µs', WANTED.hit),
  ];
};

function fill(store: MeshStore, generated: GeneratedMesh): { seconds: number; longest: number } {
  let longest = 0;
  let total = 0;
  const inSlices = (count: number, apply: (from: number, size: number) => void) => {
    for (let from = 0; from < count; from += SLICE) {
      const time = cpuOf(() => apply(from, Math.min(SLICE, count - from)));
      total += time;
      longest = Math.max(longest, time);
    }
  };
  inSlices(generated.services, (from, size) =>
    store.apply({ services: Array.from({ length: size }, (_, index) => generated.service(from + index)) }),
  );
  inSlices(generated.workloads, (from, size) =>
    store.apply({ workloads: Array.from({ length: size }, (_, index) => generated.workload(from + index)) }),
  );
  return { seconds: total / 1000, longest };
}

/** Blocks of all usual lengths, in both families. */
function cidrLookups(round: number): { ipv4: number; ipv6: number } {
  const store = createMeshState({ localNode: '' });
  const { service } = generateMesh(1, CIDRS);
  store.apply({
    services: Array.from({ length: CIDRS }, (_, index) => ({
      ...service(index),
      vips: [],
      cidrVips: [
        { network: '', cidr: `${10 + (index >> 12)}.${(index >> 4) & 255}.${(index & 15) << 4}.0/${20 + (index % 9)}` },
        { network: '', cidr: `2001:db8:${index.toString(16)}::/${48 + (index % 17)}` },
      ].map(({ network, cidr }) => ({ network, cidr: formatCidr(parseCidr(cidr)!) })),
    })),
  });
  const v4 = Array.from({ length: 1000 }, (_, index) => `10.${index & 255}.${(index * 13) & 255}.7`);
  const v6 = Array.from({ length: 1000 }, (_, index) => `2001:db8:${(index * 9).toString(16)}::7`);
  return {
    ipv4: each(round, (index) => store.serviceByVip('', v4[index % v4.length]!, 'x')),
    ipv6: each(round / 4, (index) => store.serviceByVip('', v6[index % v6.length]!, 'x')),
  };
}

/** One endpoint turning unhealthy, or healthy again, with plans of its service in use. In µs. */
function update(store: MeshStore, generated: GeneratedMesh, round: number): number {
  const registry = new PlanRegistry<string>();
  const stop = store.subscribe(
    (change) => registry.takeTouched(change),
    () => true,
  );
  const updates = Array.from({ length: round }, (_, index) => {
    const { workload, services } = generated.workload((index * 31) % generated.workloads);
    return { workload: { ...workload, status: 'Unhealthy' as const }, services };
  });
  const time = each(round, (index) => {
    if (index % 10 === 0) registry.add('thread', 'pod', index, [`s namespace-1/service-${index}`]);
    store.apply({ workloads: [updates[index]!] });
  });
  stop();
  return time;
}

function largeService(): { plan: number; made: number; crossed: number; pick: number } {
  const generated = generateMesh(LARGE_SERVICE, 1);
  const store = createMeshState({ localNode: '' });
  fill(store, generated);
  const { name, namespace, serviceAccount } = generated.workload(0).workload;
  const pod = { uid: 'uid', name, namespace, serviceAccount };
  const target = { ip: generated.vip(0), port: 80 };
  const make = () => planOutbound(recordReads(store as RouteState, new Set()), pod, target, '', generated.ip(0));
  const made = best(() => make());
  const plan = make() as Extract<OutboundPlan, { kind: 'forward' }>;
  // What postMessage does on one side and the other.
  const crossed = best(() => structuredClone(plan));
  const set = endpointsOf(structuredClone(plan));
  const balancer = new Balancer({
    ejectionTime: 1000,
    maxEjectionTime: 1000,
    maxEjectedPercent: 50,
    now: () => performance.now(),
    random: Math.random,
    onFailure: () => {},
  });
  for (let i = 0; i < 1000; i++) balancer.joined(balancer.pick(set, null)!);
  const pick = each(100_000, () => balancer.pick(set, null));
  return { plan: made + crossed, made, crossed, pick };
}

function cacheHit(round: number): number {
  const plan: OutboundPlan = { kind: 'reject', reason: { tag: 'not-planned', message: '' } };
  let id = 0;
  const cache = new PlanCache((_, done) => done(plan, ++id));
  const pod = { info: { uid: 'uid-of-the-pod' } } as Pod;
  const targets = Array.from({ length: 1000 }, (_, index) => ({ ip: `10.1.${index >> 8}.${index & 255}`, port: 8080 }));
  for (const target of targets) cache.outbound(pod, target, '10.0.0.1', () => {});
  return each(round, (index) => cache.outbound(pod, targets[index % targets.length]!, '10.0.0.1', () => {}));
}

/** µs of one operation: the best of three rounds, after one to warm up. */
function each(round: number, operation: (index: number) => unknown): number {
  const run = () => {
    for (let index = 0; index < round; index++) sink[0] = operation(index);
  };
  run();
  return (Math.min(cpuOf(run), cpuOf(run), cpuOf(run)) * 1000) / round;
}

/** ms of the best of ten, by the clock: too short for the account of the processor. */
function best(operation: () => unknown): number {
  const times = Array.from({ length: 10 }, () => {
    const start = performance.now();
    sink[0] = operation();
    return performance.now() - start;
  });
  return Math.min(...times);
}

/** So that nothing is optimised away. */
const sink: unknown[] = [];

/** Milliseconds of this thread's processor. */
function cpuOf(work: () => void): number {
  const before = process.threadCpuUsage();
  work();
  const { user, system } = process.threadCpuUsage(before);
  return (user + system) / 1000;
}

function us(value: number): string {
  return `${value.toFixed(2)} µs`;
}

function ms(value: number): string {
  return `${value.toFixed(1)} ms`;
}

function figure(what: string, measured: string, value: number, unit: string, atMost: number): Figure {
  return { what, measured, value, printed: `${value.toFixed(2)} ${unit}`, bound: { atMost } };
}
