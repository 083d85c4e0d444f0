/** What limits how far an explanation can be trusted, and what whoever asks may have overlooked. */
import type { SocketAddress } from '../netns/address.ts';
import { type Service, serviceKey, type Workload } from '../state/types.ts';
import type { ExplainedRoute, ExplainedWorkload } from './types.ts';
import type { Target, World } from './world.ts';

/** Endpoints that are looked at. */
const NOTED = 10;
/** Ports of a service that are named. */
const LISTED = 20;

export function notesOf(
  world: World,
  from: ExplainedWorkload,
  source: Workload,
  target: Target,
  route: ExplainedRoute,
): string[] {
  const service = world.mesh.serviceByVip(source.network, target.address.ip, source.namespace);
  return [
    ...notesOnSource(from, source),
    ...notesOnTarget(world, source, target, service),
    ...(route.kind === 'refused'
      ? notesOnRefusal(world, source, target, service, route)
      : [...notesOnPassthrough(service, route), ...notesOnEndpoints(world, route)]),
  ];
}

function notesOnSource({ enrolled }: ExplainedWorkload, { namespace, name, protocol }: Workload): string[] {
  if (protocol === 'TCP') {
    return [`${namespace}/${name} is not in the mesh: it connects in plain text and without identity`];
  }
  if (enrolled !== false) return [];
  return [
    `${namespace}/${name} belongs to this node but is not enrolled: its connections are not carried by this agent`,
  ];
}

/** Several may have one address, and only one of them is reached by it. */
function notesOnTarget(
  { mesh }: World,
  source: Workload,
  { address, named }: Target,
  byAddress: Service | null,
): string[] {
  if (named === null) return [];
  const workload = mesh.workloadByAddress(source.network, address.ip);
  // As the route is found: the cluster's own network, which carries connections in plain text, knows the pod first.
  const isPlain = source.protocol === 'TCP' && workload !== null;
  const service = isPlain ? null : byAddress;
  const found =
    service !== null
      ? { key: serviceKey(service), what: `the service ${serviceKey(service)}` }
      : workload !== null
        ? { key: workload.uid, what: `the workload ${workload.namespace}/${workload.name}` }
        : { key: '', what: `nothing that the mesh knows on the network ${JSON.stringify(source.network)}` };
  return found.key === named ? [] : [`for this source ${address.ip} leads to ${found.what}, not to ${named}`];
}

function notesOnRefusal(
  { mesh }: World,
  source: Workload,
  { address }: Target,
  service: Service | null,
  { reason }: Extract<ExplainedRoute, { kind: 'refused' }>,
): string[] {
  if (service === null) return [];
  switch (reason.tag) {
    case 'no-healthy-upstream':
      return [`the service ${serviceKey(service)} ${whyNoUpstream(service, address)}`];
    case 'no-valid-destination':
      return [...service.endpoints.keys().take(NOTED)]
        .map((uid) => mesh.workload(uid))
        .filter((workload) => workload !== null)
        .map((workload) => `${workload.namespace}/${workload.name} ${whyNotValid(workload, source, service)}`);
    default:
      return [];
  }
}

function whyNotValid({ network, networkGateway, workloadIps }: Workload, source: Workload, service: Service): string {
  if (network !== source.network) {
    const gateway = networkGateway === null ? ', and says no gateway of that network' : '';
    return `is on the network ${JSON.stringify(network)}, not on that of the source${gateway}`;
  }
  return `has ${workloadIps.join(', ') || 'no address'}; the service takes ${service.ipFamilies ?? 'any family'}`;
}

function notesOnPassthrough(service: Service | null, { kind }: ExplainedRoute): string[] {
  if (kind !== 'passthrough' || service === null) return [];
  return [
    `the service ${serviceKey(service)} is known, but its load balancing is Passthrough: nothing is done with it`,
  ];
}

function whyNoUpstream({ ports, endpoints, loadBalancer }: Service, { port }: SocketAddress): string {
  if (ports[port] === undefined) {
    const known = Object.keys(ports);
    const shown = known.slice(0, LISTED).join(', ');
    return `has no port ${port}; it has ${known.length === 0 ? 'none' : shown}${known.length > LISTED ? ' …' : ''}`;
  }
  if (endpoints.size === 0) return 'has no endpoint: no healthy workload says that it is one';
  const needs =
    loadBalancer?.mode === 'Strict' ? ` and shares ${loadBalancer.routingPreferences.join(', ')} with the source` : '';
  return `has endpoints (${endpoints.size}), but none that has a weight, an address and the port${needs}`;
}

function notesOnEndpoints(
  { localNode, pods, mesh }: World,
  { endpoints }: Exclude<ExplainedRoute, { kind: 'refused' }>,
) {
  const notes: string[] = [];
  for (const { uid, namespace, name } of endpoints.slice(0, NOTED)) {
    const workload = mesh.workload(uid);
    if (workload === null || workload.protocol !== 'HBONE' || workload.nativeTunnel) continue;
    if (localNode !== '' && workload.node !== localNode) continue;
    if (pods.some((pod) => pod.name === name && pod.namespace === namespace)) continue;
    notes.push(`${namespace}/${name} belongs to this node but is not enrolled: nobody serves tunnels or judges for it`);
  }
  return notes;
}
