import { formatSocketAddress, isIpv4, type SocketAddress } from '../netns/address.ts';
import { endpointsOf } from '../routing/endpoint-set.ts';
import { serviceLabels } from '../routing/labels.ts';
import { loadBalance } from '../routing/load-balance.ts';
import { planOutbound } from '../routing/outbound.ts';
import type { PlannedEndpoint, ServiceLabels } from '../routing/plan.ts';
import { formatGatewayDestination, identityOf, type Workload } from '../state/types.ts';
import type { PodInfo } from '../zds/types.ts';
import { as, judgeArrival, notJudged } from './judgement.ts';
import { notesOf } from './notes.ts';
import type {
  BehindWaypoint,
  ExplainedEndpoint,
  ExplainedRoute,
  ExplainedWorkload,
  Explanation,
  Judgement,
} from './types.ts';
import { findSource, findTarget, QuestionError, type Target, type World } from './world.ts';

export interface Question {
  readonly from: string;
  readonly to: string;
  /** null: `to` says it */
  readonly port: string | null;
}

/** Endpoints that an explanation lists, and those of them whose policies it goes through. */
const LISTED = 100;
const JUDGED = 10;
const JUDGED_BEHIND = 3;

/**
 * What would happen to a connection now: where it would go, and what the policies of its destination say. Yields now and
 * then, as there may be many policies.
 * @throws QuestionError
 */
export function* explain(world: World, { from, to, port }: Question): Generator<void, Explanation> {
  if (from === '') throw new QuestionError('from= is missing: name a pod as namespace/name, an address or an identity');
  if (to === '') throw new QuestionError('to= is missing: name a service, a pod or an address, and a port');
  const source = yield* findSource(world, from);
  const target = yield* findTarget(world, source, to, port);
  return yield* explainConnection(world, source, target, to);
}

/** The same for a source and a destination that are known. */
export function* explainConnection(
  world: World,
  source: Workload,
  target: Target,
  asked: string,
): Generator<void, Explanation> {
  const { address } = target;
  const peerIp = sourceAddress(source, address);
  const route =
    source.protocol === 'HBONE'
      ? yield* capturedRoute(world, source, address, peerIp)
      : yield* plainRoute(world, source, address, peerIp);
  const explained = describeWorkload(world, source);
  return {
    ...conclude(route),
    from: explained,
    to: { asked, address: formatSocketAddress(address) },
    route,
    notes: notesOf(world, explained, source, target, route),
  };
}

/** As the agent of the source plans it. */
function* capturedRoute(
  world: World,
  source: Workload,
  target: SocketAddress,
  peerIp: string,
): Generator<void, ExplainedRoute> {
  const plan = planOutbound(as(world.mesh, source), podOf(source), target, world.network, peerIp, world.names);
  if (plan.kind === 'reject') return { kind: 'refused', reason: plan.reason };
  const set = endpointsOf(plan);
  const nearest = plan.groups.filter(({ tier }) => tier === plan.groups[0]!.tier);
  const total = nearest.reduce((sum, { weight, ips }) => sum + weight * ips.length, 0);
  const endpoints: ExplainedEndpoint[] = [];
  for (let index = 0; index < Math.min(set.size, LISTED); index++) {
    const endpoint = set.at(index);
    const judgement =
      index < JUDGED ? yield* judgeEndpoint(world, source, peerIp, endpoint, plan.service) : notJudged(MANY);
    const share = index < set.endOf(0) ? endpoint.weight / total : 0;
    endpoints.push(describeEndpoint(world, source, endpoint, share, judgement));
  }
  const waypoints = waypointsOnTheWay(world, source, target, set.at(0));
  const kinds = new Set(nearest.map((group) => kindOf(group, group.destination === null)));
  return {
    kind: kinds.size === 1 ? [...kinds][0]! : 'mixed',
    service: plan.service,
    waypoints,
    behindWaypoint: waypoints.length === 0 ? null : yield* behindWaypoint(world, target, set.at(0)),
    endpointCount: set.size,
    endpoints,
  };
}

/**
 * Where a waypoint would go on to, and what is said there of its connections: it comes under its own identity. Whether it
 * lets a connection through at all is for its own rules to say.
 */
function* behindWaypoint(
  world: World,
  target: SocketAddress,
  { uid, address }: PlannedEndpoint,
): Generator<void, BehindWaypoint | null> {
  const waypoint = world.mesh.workload(uid);
  if (waypoint === null) return null;
  const { ip } = address;
  const plan = planOutbound(as(world.mesh, waypoint), podOf(waypoint), target, world.network, ip, world.names);
  const { namespace, name } = waypoint;
  const identity = identityOf(waypoint);
  if (plan.kind === 'reject') return { namespace, name, identity, endpoints: [] };
  const set = endpointsOf(plan);
  const endpoints: BehindWaypoint['endpoints'][number][] = [];
  for (let index = 0; index < Math.min(set.size, JUDGED_BEHIND); index++) {
    const endpoint = set.at(index);
    endpoints.push({
      namespace: endpoint.destination?.namespace ?? '',
      name: endpoint.destination?.name ?? '',
      address: formatSocketAddress(endpoint.address),
      policy: yield* judgeEndpoint(world, waypoint, ip, endpoint, plan.service),
    });
  }
  return { namespace, name, identity, endpoints };
}

/** Nobody carries the source's connections: the cluster's own network does. */
function* plainRoute(
  world: World,
  source: Workload,
  target: SocketAddress,
  peerIp: string,
): Generator<void, ExplainedRoute> {
  const { mesh } = world;
  const workload = mesh.workloadByAddress(source.network, target.ip);
  const service = workload === null ? mesh.serviceByVip(source.network, target.ip, source.namespace) : null;
  const reached =
    service !== null
      ? loadBalance(mesh, source, service, target.port, 'standard')
      : workload !== null
        ? [{ workload, port: target.port, weight: 1 }]
        : [];
  if (reached.length === 0 && service !== null) {
    const message = `no endpoint of ${service.hostname} takes port ${target.port}`;
    return { kind: 'refused', reason: { tag: 'no-healthy-upstream', message } };
  }
  const total = reached.reduce((sum, { weight }) => sum + weight, 0);
  const endpoints: ExplainedEndpoint[] = [];
  for (const [index, { workload, port, weight }] of reached.slice(0, LISTED).entries()) {
    const ip = workload.workloadIps.find((candidate) => isIpv4(candidate) === isIpv4(target.ip)) ?? target.ip;
    const address = { ip, port };
    const arrival = { source, peerIp, destination: workload, address, authority: null, claimedService: null };
    endpoints.push({
      uid: workload.uid,
      name: workload.name,
      namespace: workload.namespace,
      address: formatSocketAddress(address),
      hostname: '',
      share: weight / total,
      health: healthOf(workload),
      failing: [],
      protocol: 'tcp',
      authority: null,
      expectedIdentities: [],
      innerIdentities: null,
      policy: index < JUDGED ? yield* judgeArrival(world, arrival) : notJudged(MANY),
    });
  }
  if (endpoints.length === 0) endpoints.push(stranger(target));
  return {
    kind: reached.length === 0 ? 'passthrough' : 'plain',
    service: service && serviceLabels(service),
    waypoints: [],
    behindWaypoint: null,
    endpointCount: Math.max(reached.length, 1),
    endpoints,
  };
}

const BEYOND_GATEWAY =
  'the gateway of the other network ends the outer tunnel only; which endpoint ends the inner one, and what its policies say, is decided over there and not known here';
const MANY = `there are many endpoints: only the first ${JUDGED} are looked at; ask for this one by its address`;

function* judgeEndpoint(
  world: World,
  source: Workload,
  peerIp: string,
  endpoint: PlannedEndpoint,
  service: ServiceLabels | null,
): Generator<void, Judgement> {
  if (endpoint.inner !== null) return notJudged(BEYOND_GATEWAY);
  const destination = world.mesh.workload(endpoint.uid);
  if (destination === null) return notJudged('the mesh does not know this address: no agent stands before it');
  const authority = endpoint.protocol === 'hbone' ? endpoint.authority : null;
  const { address } = endpoint;
  const claimedService = service?.hostname ?? null;
  return yield* judgeArrival(world, { source, peerIp, destination, address, authority, claimedService });
}

function describeEndpoint(
  { mesh, pods, failing }: World,
  source: Workload,
  endpoint: PlannedEndpoint,
  share: number,
  policy: Judgement,
): ExplainedEndpoint {
  const { uid, address, hostname, protocol, authority, expectedIdentities, inner, destination } = endpoint;
  const workload = mesh.workload(uid);
  const pod = pods.find(({ name, namespace }) => name === source.name && namespace === source.namespace);
  return {
    uid,
    name: destination?.name ?? '',
    namespace: destination?.namespace ?? '',
    address: formatSocketAddress(address),
    hostname,
    share,
    health: workload === null ? 'not known' : healthOf(workload),
    failing: failing
      .filter((each) => each.pod === pod?.uid && each.endpoint === endpoint.healthKey)
      .map(({ worker, failures, ejectedFor }) => ({ worker, failures, ejectedForMs: ejectedFor })),
    protocol: inner === null ? protocol : 'double-hbone',
    authority: protocol === 'hbone' ? authority : null,
    expectedIdentities,
    innerIdentities: inner?.expectedIdentities ?? null,
    policy,
  };
}

function stranger(target: SocketAddress): ExplainedEndpoint {
  return {
    uid: '',
    name: '',
    namespace: '',
    address: formatSocketAddress(target),
    hostname: '',
    share: 1,
    health: 'not known',
    failing: [],
    protocol: 'tcp',
    authority: null,
    expectedIdentities: [],
    innerIdentities: null,
    policy: notJudged('the mesh does not know this address: no agent stands before it'),
  };
}

function kindOf(
  { protocol, inner }: { readonly protocol: 'hbone' | 'tcp'; readonly inner: unknown },
  isStranger: boolean,
): 'tunnel' | 'double-tunnel' | 'plain' | 'passthrough' {
  if (protocol === 'tcp') return isStranger ? 'passthrough' : 'plain';
  return inner === null ? 'tunnel' : 'double-tunnel';
}

/** Those configured for what is addressed, if the route goes through them. */
function waypointsOnTheWay(
  { mesh, network }: World,
  source: Workload,
  target: SocketAddress,
  first: PlannedEndpoint,
): string[] {
  const workload = mesh.workloadByAddress(network, target.ip);
  const service = workload === null ? mesh.serviceByVip(network, target.ip, source.namespace) : null;
  const weighted = (service?.weightedWaypoints ?? []).filter(({ weight }) => weight > 0);
  const single = (service ?? workload)?.waypoint ?? null;
  const all = weighted.length > 0 ? weighted.map(({ destination }) => destination) : single === null ? [] : [single];
  // The tunnel carries the address that was asked for only when a waypoint is to go on from there.
  const isUsed = first.protocol === 'hbone' && first.authority === formatSocketAddress(target);
  const isItself = workload !== null && first.uid === workload.uid;
  return isUsed && !isItself ? all.map(({ destination }) => formatGatewayDestination(destination)) : [];
}

function conclude(route: ExplainedRoute): Pick<Explanation, 'summary' | 'outcome'> {
  if (route.kind === 'refused') {
    return { outcome: 'refused', summary: `The connection is refused at its source: ${route.reason.message}.` };
  }
  const judged = route.endpoints.map(({ policy }) => policy).filter((policy) => policy.kind !== 'not-judged');
  const way = WAYS[route.kind];
  if (judged.length === 0) {
    const [first] = route.endpoints;
    const why = first?.policy.kind === 'not-judged' ? first.policy.reason : '';
    return { outcome: 'not-judged', summary: `The connection goes ${way}; no policy judges it: ${why}.` };
  }
  const isGood = (policy: Judgement) => policy.kind === 'judged' && policy.verdict === 'allow';
  const good = judged.filter(isGood).length;
  const decisive = judged.find((policy) => !isGood(policy)) ?? judged[0]!;
  const why = decisive.kind === 'judged' ? decisive.reason : decisive.kind === 'refused' ? decisive.reason : '';
  if (good === judged.length)
    return { outcome: 'allowed', summary: `The connection goes ${way} and is allowed: ${why}.` };
  if (good === 0) return { outcome: 'denied', summary: `The connection goes ${way} and is denied: ${why}.` };
  return {
    outcome: 'depends-on-endpoint',
    summary: `The connection goes ${way}; ${good} of ${judged.length} endpoints allow it, others do not: ${why}.`,
  };
}

const WAYS = {
  tunnel: 'through a tunnel',
  'double-tunnel': 'through a network gateway, in a tunnel inside a tunnel',
  plain: 'in plain TCP',
  passthrough: 'in plain TCP to an address outside the mesh',
  mixed: 'different ways, depending on the endpoint',
} as const;

function describeWorkload({ localNode, pods }: World, workload: Workload): ExplainedWorkload {
  const { uid, name, namespace, node, network, workloadIps } = workload;
  const isLocal = localNode === '' || node === localNode;
  const isServed = pods.some((pod) => pod.name === name && pod.namespace === namespace);
  return {
    uid,
    name,
    namespace,
    node,
    network,
    addresses: workloadIps,
    identity: identityOf(workload),
    enrolled: isLocal ? isServed : null,
  };
}

function healthOf({ status }: Workload): 'healthy' | 'unhealthy' {
  return status === 'Healthy' ? 'healthy' : 'unhealthy';
}

/** The address of the source that a connection to the target comes from. */
function sourceAddress({ workloadIps }: Workload, { ip }: SocketAddress): string {
  return workloadIps.find((own) => isIpv4(own) === isIpv4(ip)) ?? workloadIps[0] ?? (isIpv4(ip) ? '0.0.0.0' : '::');
}

function podOf({ name, namespace, serviceAccount }: Workload): PodInfo {
  return { uid: '', name, namespace, serviceAccount };
}
