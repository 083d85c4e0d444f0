import { CulvertError } from '../errors.ts';
import { canonicalIp, isIpv4, parsePort, parseSocketAddress, type SocketAddress } from '../netns/address.ts';
import type { ResolvedNames } from '../routing/names.ts';
import type { MeshState } from '../state/mesh-state.ts';
import { identityOf, type Service, serviceKey, splitNetworkAddress, type Workload } from '../state/types.ts';
import type { PodInfo } from '../zds/types.ts';

/** What questions are answered from. */
export interface World {
  readonly mesh: MeshState;
  /** Name of this agent's network. */
  readonly network: string;
  /** '' when it is not known */
  readonly localNode: string;
  /** The pods that this agent serves. */
  readonly pods: readonly PodInfo[];
  /** Endpoints that these pods could not reach lately. */
  readonly failing: readonly FailingEndpoint[];
  /** What DNS says of workloads that the mesh knows by name. */
  readonly names: ResolvedNames;
}

/** An endpoint as one worker has met it for one pod (routing/balancer.ts). */
export interface FailingEndpoint {
  /** uid of the pod. */
  readonly pod: string;
  readonly worker: number;
  /** Health key of the endpoint. */
  readonly endpoint: string;
  /** In a row. */
  readonly failures: number;
  /** How long it is left out from now on, in ms; 0 when it is in use. */
  readonly ejectedFor: number;
}

/** What a connection is made to. */
export interface Target {
  readonly address: SocketAddress;
  /** Key of the service or uid of the workload that was asked for by name; null when the address was. */
  readonly named: string | null;
}

/** What was asked makes no sense, or names what is not there; the message says how to ask. */
export class QuestionError extends CulvertError<'QUESTION_INVALID'> {
  constructor(message: string) {
    super('QUESTION_INVALID', message);
  }
}

/**
 * The workload that a connection comes from: `namespace/pod`, an address, a workload's uid, a pod's uid, or an identity
 * (`spiffe://…`), which one of its workloads stands for.
 * @throws QuestionError
 */
export function* findSource(world: World, asked: string): Generator<void, Workload> {
  const { mesh, network, pods } = world;
  const ip = canonicalIp(asked);
  if (ip !== null) {
    const workload = mesh.workloadByAddress(network, ip);
    if (workload !== null) return workload;
    throw new QuestionError(`no workload of the mesh has the address ${ip}: name the pod as namespace/name`);
  }
  const enrolled = pods.find((pod) => pod.uid === asked || `${pod.namespace}/${pod.name}` === asked);
  const local = enrolled === undefined ? null : mesh.localWorkload(enrolled);
  if (local !== null) return local;
  const known = mesh.workload(asked);
  if (known !== null) return known;
  if (asked.startsWith('spiffe://')) {
    const found = yield* findWorkload(world, (workload) => identityOf(workload) === asked);
    if (found !== null) return found;
    throw new QuestionError(`no workload of the mesh has the identity ${asked}: name a pod as namespace/name`);
  }
  const found = yield* findWorkload(world, (workload) => `${workload.namespace}/${workload.name}` === asked);
  if (found !== null) return found;
  if (asked.includes('/')) {
    throw new QuestionError(
      `the mesh state has no workload ${asked}: /config_dump lists those that it has under "workloads"`,
    );
  }
  throw new QuestionError(
    `from=${asked} is understood neither as namespace/pod nor as an address, a uid or an identity (spiffe://…)`,
  );
}

/**
 * The address that a connection is made to: `address:port`, `host:port`, `namespace/pod:port`, or the same without the
 * port and `port` besides. A service stands for its first address.
 * @throws QuestionError
 */
export function* findTarget(
  world: World,
  source: Workload,
  asked: string,
  askedPort: string | null,
): Generator<void, Target> {
  const { host, port } = splitPort(asked, askedPort);
  const ip = canonicalIp(host);
  if (ip !== null) return { address: { ip, port }, named: null };
  const service = yield* findService(world, source, host);
  if (service !== null) {
    return { address: { ip: addressOf(world, service, source), port }, named: serviceKey(service) };
  }
  const workload = host.includes('/')
    ? ((yield* findWorkload(world, (each) => `${each.namespace}/${each.name}` === host)) ?? world.mesh.workload(host))
    : null;
  if (workload === null) {
    const awaited = awaitedService(world, source, host);
    if (awaited !== null) {
      throw new QuestionError(`workloads say that they serve ${awaited}, but the mesh state has no such service`);
    }
    throw new QuestionError(
      `the mesh state has neither a service nor a workload ${host}: name a service by its host name or as name.namespace, a pod as namespace/name, anything else by its address`,
    );
  }
  const [first] = workload.workloadIps;
  if (first === undefined) throw new QuestionError(`the workload ${host} has no address: ask for an address instead`);
  return { address: { ip: first, port }, named: workload.uid };
}

function splitPort(asked: string, askedPort: string | null): { host: string; port: number } {
  const address = parseSocketAddress(asked);
  const colon = asked.lastIndexOf(':');
  const isBareIp = canonicalIp(asked) !== null;
  // A uid may have colons of its own, so what follows the last one counts as a port only when it looks like one.
  const inHost = !isBareIp && /:\d+$/.test(asked) ? asked.slice(colon + 1) : null;
  if (inHost !== null && askedPort !== null && inHost !== askedPort) {
    throw new QuestionError(`to=${asked} and port=${askedPort} name two ports: leave one of them out`);
  }
  const given = inHost ?? askedPort;
  if (given === null) {
    const host = isBareIp && asked.includes(':') ? `[${asked}]` : asked;
    throw new QuestionError(`to=${asked} says no port: ask for to=${host}:80, or add port=80`);
  }
  const port = parsePort(given);
  if (port === null || port === 0) {
    throw new QuestionError(`${JSON.stringify(given)} is no port: a number from 1 to 65535 is accepted`);
  }
  if (address !== null) return { host: address.ip, port };
  return { host: given === inHost ? asked.slice(0, colon) : asked, port };
}

/** By host name, `namespace/hostname`, `name.namespace` or, in the source's namespace, by name. */
function* findService({ mesh }: World, source: Workload, host: string): Generator<void, Service | null> {
  const exact = mesh.service(host) ?? mesh.serviceByHostname(host, source.namespace);
  if (exact !== null) return exact;
  let count = 0;
  for (const service of mesh.services()) {
    const { name, namespace } = service;
    const names = [`${name}.${namespace}`, `${name}.${namespace}.svc`, namespace === source.namespace ? name : null];
    if (names.includes(host)) return service;
    if (++count % AT_ONCE === 0) yield;
  }
  return null;
}

/** The key of a service that is not there, though workloads are to be its endpoints. */
function awaitedService({ mesh }: World, { namespace }: Workload, host: string): string | null {
  for (const [key] of mesh.stagedEndpoints()) {
    if (key === host || key.endsWith(`/${host}`) || key.startsWith(`${namespace}/${host}.`)) return key;
  }
  return null;
}

/** Of this node rather than another. */
function* findWorkload(
  { mesh, localNode }: World,
  fits: (workload: Workload) => boolean,
): Generator<void, Workload | null> {
  let found: Workload | null = null;
  let count = 0;
  for (const workload of mesh.workloads()) {
    if (fits(workload)) {
      if (workload.node === localNode) return workload;
      found ??= workload;
    }
    if (++count % AT_ONCE === 0) yield;
  }
  return found;
}

/** Entries that are looked at in a row. */
const AT_ONCE = 512;

function addressOf({ network }: World, service: Service, source: Workload): string {
  const addresses = service.vips
    .map(splitNetworkAddress)
    .sort((a, b) => rank(b) - rank(a))
    .map(({ ip }) => ip);
  function rank(vip: { network: string; ip: string }): number {
    return (vip.network === source.network || vip.network === network ? 2 : 0) + (isIpv4(vip.ip) ? 1 : 0);
  }
  if (addresses[0] !== undefined) return addresses[0];
  throw new QuestionError(
    `the service ${service.hostname} has no address of its own: clients connect to one of its pods, so ask for a pod as namespace/name:port`,
  );
}
