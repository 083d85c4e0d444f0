/**
 * Random meshes, planned twice: by the agent, and by the model below, which follows the decision table of spec §3.2 to
 * §3.7 sentence by sentence over plain lists, one workload at a time, without indexes, groups or caches.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatSocketAddress, type SocketAddress } from '../../src/netns/address.ts';
import { EndpointSet } from '../../src/routing/endpoint-set.ts';
import { planOutbound } from '../../src/routing/outbound.ts';
import type { WorkloadUpdate } from '../../src/state/mesh-state.ts';
import type { GatewayAddress, RoutingScope, ServiceDefinition } from '../../src/state/types.ts';
import { byAddress, byHostname, meshOf, pod, service, workload } from '../state/mesh-builder.ts';

const CLIENT_IP = '10.0.0.1';
const NETWORK = '';
const keyOf = (name: string) => `default/${name}.default.svc.cluster.local`;
const idOf = (name: string) => `spiffe://cluster.local/ns/default/sa/${name}`;

/** Every name has one address, so that an address has one owner. */
const IPS: Readonly<Record<string, string>> = {
  client: CLIENT_IP,
  a: '10.0.0.2',
  b: '10.0.0.3',
  c: '10.0.0.4',
  wp: '10.0.0.9',
};
const VIPS: Readonly<Record<string, string>> = { web: '10.96.0.1', wp: '10.96.0.9', own: '10.0.0.3' };

const gateways = fc.constantFrom(
  null,
  byAddress(IPS.wp!),
  byAddress(VIPS.wp!),
  byAddress(CLIENT_IP),
  byHostname('wp.default.svc.cluster.local'),
  byHostname('nobody.example.com'),
);

const anyWorkload = (name: string) =>
  fc
    .record({
      services: fc.dictionary(
        fc.constantFrom('web', 'wp', 'own').map(keyOf),
        fc.constantFrom({}, { 80: 8081 }, { 443: 9443 }),
      ),
      protocol: fc.constantFrom('HBONE' as const, 'TCP' as const),
      network: fc.constantFrom('', '', '', 'n2'),
      capacity: fc.constantFrom(0, 1, 1, 3),
      status: fc.constantFrom('Healthy' as const, 'Healthy' as const, 'Unhealthy' as const),
      zone: fc.constantFrom('z1', 'z2'),
      node: fc.constantFrom('node-a', 'node-b'),
      waypoint: gateways,
      networkGateway: gateways,
      tunnelPort: fc.constantFrom(null, 15088),
      hasAddress: fc.constantFrom(true, true, true, false),
    })
    .map(({ zone, tunnelPort, hasAddress, ...fields }) =>
      workload(name, {
        ...fields,
        ...(name === 'client' ? { network: NETWORK, node: 'node-a' } : {}),
        workloadIps: hasAddress || name === 'client' ? [IPS[name]!] : [],
        locality: { zone },
        applicationTunnel: tunnelPort === null ? null : { protocol: 'PROXY', port: tunnelPort },
      }),
    );

const anyService = (name: string) =>
  fc
    .record({
      ports: fc.constantFrom({ 80: 8080 }, { 80: 0, 15008: 15008 }, { 80: 8080, 15008: 15009 }, {}),
      waypoint: fc.oneof({ weight: 3, arbitrary: fc.constant(null) }, { weight: 2, arbitrary: gateways }),
      weights: fc.constantFrom(null, [0, 0], [1, 3]),
      subjectAltNames: fc.subarray([idOf('x'), idOf('y')]),
      mode: fc.constantFrom('Standard' as const, 'Strict' as const, 'Failover' as const, 'Passthrough' as const),
      scopes: fc.constantFrom<RoutingScope[]>(['Zone'], ['Network', 'Zone'], ['Zone', 'Node'], []),
      takesAll: fc.boolean(),
    })
    .map(({ weights, mode, scopes, takesAll, ...fields }) =>
      service(name, {
        ...fields,
        vips: [`/${VIPS[name]}`],
        weightedWaypoints:
          weights?.map((weight, at) => ({ weight, destination: byAddress(at === 0 ? IPS.wp! : IPS.c!) })) ?? [],
        loadBalancer: { mode, routingPreferences: scopes, healthPolicy: takesAll ? 'AllowAll' : 'OnlyHealthy' },
      }),
    );

interface World {
  readonly workloads: readonly WorkloadUpdate[];
  readonly services: readonly ServiceDefinition[];
}

const anyWorld: fc.Arbitrary<World> = fc.record({
  workloads: fc
    .tuple(
      ...Object.keys(IPS).map((name) =>
        fc.tuple(name === 'client' ? fc.constant(true) : fc.boolean(), anyWorkload(name)),
      ),
    )
    .map((all) => all.flatMap(([isThere, each]) => (isThere ? [each] : []))),
  services: fc
    .tuple(...Object.keys(VIPS).map((name) => fc.tuple(fc.boolean(), anyService(name))))
    .map((all) => all.flatMap(([isThere, each]) => (isThere ? [each] : []))),
});

const anyTarget: fc.Arbitrary<SocketAddress> = fc.record({
  ip: fc.constantFrom(...Object.values(IPS), ...Object.values(VIPS), '192.0.2.1'),
  port: fc.constantFrom(80, 443, 15008),
});

test('the plan for a random mesh is that of the model', () => {
  fc.assert(
    fc.property(anyWorld, anyTarget, fc.constantFrom(CLIENT_IP, '10.0.0.77'), (world, target, peerIp) => {
      const mesh = meshOf({ services: world.services }, { workloads: world.workloads });
      const plan = planOutbound(mesh, pod('client'), target, NETWORK, peerIp);
      const said =
        plan.kind === 'reject'
          ? [plan.reason.tag]
          : [...new EndpointSet(plan.groups)].map(
              ({ uid, protocol, address, authority, expectedIdentities, inner, tier, weight }) =>
                line(
                  path(
                    uid,
                    protocol,
                    formatSocketAddress(address),
                    authority,
                    expectedIdentities,
                    inner?.expectedIdentities ?? [],
                    tier,
                    weight,
                  ),
                ),
            );
      const expected = model(world, target, peerIp);
      // Which of several reasons is told is not laid down.
      if (plan.kind === 'reject') assert.ok(expected.includes(plan.reason.tag), `${said} is not of ${expected}`);
      else assert.deepEqual(said.sort(), expected.sort());
    }),
    { numRuns: 3000 },
  );
});

/** A way to an endpoint. */
interface Path {
  readonly what: string;
  readonly tier: number;
  readonly weight: number;
}

function line({ what, tier, weight }: Path): string {
  return `${what} ${tier} ${weight.toFixed(6)}`;
}

function path(
  uid: string,
  protocol: string,
  to: string,
  authority: string,
  ids: readonly string[],
  inner: readonly string[],
  tier: number,
  weight: number,
): Path {
  return { what: [uid, protocol, to, authority, ids.join(), inner.join()].join(' '), tier, weight };
}

interface Hop {
  readonly update: WorkloadUpdate;
  readonly port: number;
  readonly service: ServiceDefinition | null;
  readonly tier: number;
  readonly weight: number;
}

function weightOf(all: readonly { readonly tier: number; readonly weight: number }[], tier: number): number {
  return all.filter((each) => each.tier === tier).reduce((sum, { weight }) => sum + weight, 0);
}

/** A line for each endpoint, or the tags of refusals. */
function model({ workloads, services }: World, target: SocketAddress, peerIp: string): string[] {
  const client = workloads.find(({ workload: { name } }) => name === 'client')!;
  const isPath = (outcome: Path | string): outcome is Path => typeof outcome !== 'string';

  const ownerOf = (ip: string) =>
    workloads.find(({ workload: { network, workloadIps } }) => network === NETWORK && workloadIps.includes(ip));
  const serviceOf = (ip: string) => services.find(({ vips }) => vips.includes(`/${ip}`));

  function endpointsOf(of: ServiceDefinition): WorkloadUpdate[] {
    const key = `${of.namespace}/${of.hostname}`;
    return workloads.filter(
      ({ workload: { status }, services: named }) =>
        key in named && (status === 'Healthy' || of.loadBalancer?.healthPolicy === 'AllowAll'),
    );
  }

  /** §3.4, §3.5 */
  function balance(of: ServiceDefinition, port: number, isWaypoint: boolean): Hop[] {
    if (!isWaypoint && !(port in of.ports)) return [];
    const hops = endpointsOf(of).flatMap((update): Hop[] => {
      const { workload: each, services: named } = update;
      if (each.capacity === 0) return [];
      if (each.workloadIps.length === 0 && (each.network === NETWORK || each.networkGateway === null)) return [];
      const mapped = named[`${of.namespace}/${of.hostname}`]?.[port];
      const tunnelled = isWaypoint && each.applicationTunnel?.port ? port : 0;
      const targetPort = mapped || of.ports[port] || tunnelled;
      return targetPort ? [{ update, port: targetPort, service: of, tier: 0, weight: each.capacity }] : [];
    });
    const { mode, routingPreferences } = of.loadBalancer!;
    const shares = ({ update: { workload: each } }: Hop) =>
      routingPreferences.map((scope) => {
        if (scope === 'Zone') return each.locality.zone === client.workload.locality.zone;
        if (scope === 'Node') return each.node === client.workload.node;
        return each.network === client.workload.network;
      });
    if (mode === 'Strict') return hops.filter((hop) => shares(hop).every(Boolean));
    if (mode !== 'Failover') return hops;
    const rank = (hop: Hop) => {
      const shared = shares(hop);
      if (routingPreferences[0] === 'Network') {
        const rest = shared.slice(1);
        const stop = rest.indexOf(false);
        return (shared[0] ? shared.length : 0) + (stop < 0 ? rest.length : stop);
      }
      const stop = shared.indexOf(false);
      return stop < 0 ? shared.length : stop;
    };
    const better = (hop: Hop) => new Set(hops.map(rank).filter((each) => each > rank(hop))).size;
    return hops.map((hop) => ({ ...hop, tier: better(hop) }));
  }

  /** §3.3 */
  function behind({ destination, hboneMtlsPort: port }: GatewayAddress, isWaypoint: boolean): Hop[] {
    const of =
      destination.kind === 'address'
        ? serviceOf(destination.ip)
        : services.find(
            ({ namespace, hostname }) => namespace === destination.namespace && hostname === destination.hostname,
          );
    if (of !== undefined) return balance(of, port, isWaypoint);
    const owner = destination.kind === 'address' ? ownerOf(destination.ip) : undefined;
    return owner === undefined ? [] : [{ update: owner, port, service: null, tier: 0, weight: 1 }];
  }

  function isClient({ destination }: GatewayAddress): boolean {
    if (peerIp !== CLIENT_IP) return false;
    const of =
      destination.kind === 'address'
        ? serviceOf(destination.ip)
        : services.find(
            ({ namespace, hostname }) => namespace === destination.namespace && hostname === destination.hostname,
          );
    if (of !== undefined) return endpointsOf(of).includes(client);
    return destination.kind === 'address' && destination.ip === CLIENT_IP;
  }

  const identities = ({ update: { workload: each }, service: of }: Hop) =>
    [...new Set([idOf(each.name), ...(of?.subjectAltNames ?? [])])].sort();

  /** §3.6 */
  function beyond(hop: Hop, addressed: ServiceDefinition, share: number): (Path | string)[] {
    const { workload: far } = hop.update;
    if (far.networkGateway === null) return ['no-valid-destination'];
    const through = behind(far.networkGateway, false);
    if (through.length === 0) return ['unknown-gateway'];
    const names = hop.service?.subjectAltNames ?? [];
    const inner = names.length === 0 ? [idOf(far.name)] : [...names].sort();
    const usable = through.filter(({ update }) => update.workload.workloadIps.length > 0);
    if (usable.length === 0) return ['no-valid-destination'];
    return usable.map((each) =>
      path(
        far.uid,
        'hbone',
        `${each.update.workload.workloadIps[0]}:${each.port}`,
        `${addressed.hostname}:${target.port}`,
        identities(each),
        inner,
        hop.tier + each.tier,
        (share * each.weight) / weightOf(usable, each.tier),
      ),
    );
  }

  function throughWaypoint(
    reference: GatewayAddress,
    share: number,
    addressed: ServiceDefinition | null,
  ): (Path | string)[] {
    const hops = behind(reference, true);
    if (hops.length === 0) return ['unknown-waypoint'];
    const pathsOf = (hop: Hop, weight: number): (Path | string)[] => {
      const { workload: each } = hop.update;
      if (each.network !== NETWORK)
        return addressed === null ? ['no-service-for-target'] : beyond(hop, addressed, weight);
      if (each.workloadIps.length === 0) return ['no-valid-destination'];
      const to = `${each.workloadIps[0]}:${hop.port}`;
      return [path(each.uid, 'hbone', to, formatSocketAddress(target), identities(hop), [], hop.tier, weight)];
    };
    // What cannot be used leaves its share to the others of its tier, whether it is reached directly or through a gateway.
    const usable = hops.flatMap((hop) => pathsOf(hop, hop.weight)).filter(isPath);
    if (usable.length === 0) return pathsOf(hops[0]!, 1);
    return usable.map((each) => ({ ...each, weight: (share * each.weight) / weightOf(usable, each.tier) }));
  }

  /** §3.2 */
  const addressed = ownerOf(target.ip) === undefined ? (serviceOf(target.ip) ?? null) : null;
  let outcomes: (Path | string)[] | null = null;
  if (addressed !== null) {
    const weighted = addressed.weightedWaypoints.filter(({ weight }) => weight > 0);
    const references =
      weighted.length > 0
        ? weighted
        : addressed.waypoint === null
          ? []
          : [{ destination: addressed.waypoint, weight: 1 }];
    if (references.length > 0 && !references.some(({ destination }) => isClient(destination))) {
      outcomes = references.flatMap(({ destination, weight }) => throughWaypoint(destination, weight, addressed));
    }
  }
  if (outcomes === null) {
    const of = serviceOf(target.ip);
    const owner = ownerOf(target.ip);
    let hops: Hop[] =
      of === undefined || of.loadBalancer?.mode === 'Passthrough' ? [] : balance(of, target.port, false);
    const isPassthrough = of?.loadBalancer?.mode === 'Passthrough' || (of === undefined && owner === undefined);
    if (isPassthrough) return [line(path('', 'tcp', formatSocketAddress(target), '', [], [], 0, 1))];
    if (hops.length === 0 && owner !== undefined)
      hops = [{ update: owner, port: target.port, service: null, tier: 0, weight: 1 }];
    if (hops.length === 0) return ['no-healthy-upstream'];
    outcomes = hops.flatMap((hop): (Path | string)[] => {
      const { workload: each } = hop.update;
      if (each.network !== NETWORK)
        return addressed === null ? ['no-service-for-target'] : beyond(hop, addressed, hop.weight);
      if (addressed === null && each.waypoint !== null && !isClient(each.waypoint)) {
        return throughWaypoint(each.waypoint, hop.weight, null);
      }
      if (each.workloadIps.length === 0) return ['no-valid-destination'];
      const ip = each.workloadIps[0]!;
      return each.protocol === 'HBONE'
        ? [path(each.uid, 'hbone', `${ip}:15008`, `${ip}:${hop.port}`, identities(hop), [], hop.tier, hop.weight)]
        : [path(each.uid, 'tcp', `${ip}:${hop.port}`, '', [], [], hop.tier, hop.weight)];
    });
  }
  const usable = outcomes.filter(isPath);
  return usable.length > 0 ? usable.map(line) : outcomes.map(String);
}
