/** Gateways as waypoints and as ways into other networks (control-01 §5, §6), and who has asked for which waypoint. */
import { canonicalIp } from '../../netns/address.ts';
import { type Gateway, type GatewayClass, REMOTE_CLASS } from '../objects/gateway.ts';
import { byAge } from '../objects/metadata.ts';
import type { Agenda } from './agenda.ts';
import type { GatewayAddress } from './messages.ts';
import { MultiMap } from './multi-map.ts';
import type { Source } from './sources.ts';
import { type Waypoint, waypointOf } from './waypoints.ts';

export const NETWORK_LABEL = 'topology.istio.io/network';

export interface NetworkGateway {
  readonly network: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  /** Canonical; "" when it has a hostname. */
  readonly ip: string;
  readonly hostname: string;
  readonly port: number;
}

export class GatewayRegistry {
  readonly #agenda: Agenda;
  readonly #gateways = new Map<string, Gateway>();
  readonly #classes = new Map<string, GatewayClass>();
  readonly #waypoints = new Map<string, Waypoint>();
  readonly #askingSources = new MultiMap<string, Source>();
  readonly #askingServices = new MultiMap<string, string>();
  readonly #askedForServices = new Map<string, readonly string[]>();
  #network = '';

  constructor(agenda: Agenda) {
    this.#agenda = agenda;
  }

  setNetwork(network: string): void {
    this.#network = network;
    for (const key of this.#gateways.keys()) this.#refresh(key);
  }

  setGateway(key: string, gateway: Gateway | null): void {
    const before = this.#gateways.get(key);
    if (gateway === null) this.#gateways.delete(key);
    else this.#gateways.set(key, gateway);
    if ([before, gateway].some((each) => each?.className === REMOTE_CLASS)) this.#agenda.networkGateways = true;
    this.#refresh(key);
  }

  setClass(name: string, gatewayClass: GatewayClass | null): void {
    if (gatewayClass === null) this.#classes.delete(name);
    else this.#classes.set(name, gatewayClass);
    this.#agenda.targets = true;
    for (const [key, gateway] of this.#gateways) if (gateway.className === name) this.#refresh(key);
  }

  waypoint(key: string): Waypoint | null {
    return this.#waypoints.get(key) ?? null;
  }

  class(name: string): GatewayClass | null {
    return this.#classes.get(name) ?? null;
  }

  /** Remembers which waypoints the workloads of a source depend on. */
  sourceAsksFor(source: Source, waypoints: readonly string[]): void {
    for (const key of source.waypoints) this.#askingSources.delete(key, source);
    for (const key of waypoints) this.#askingSources.add(key, source);
    source.waypoints = waypoints;
  }

  serviceAsksFor(service: string, waypoints: readonly string[]): void {
    for (const key of this.#askedForServices.get(service) ?? []) this.#askingServices.delete(key, service);
    for (const key of waypoints) this.#askingServices.add(key, service);
    if (waypoints.length === 0) this.#askedForServices.delete(service);
    else this.#askedForServices.set(service, waypoints);
  }

  /** In an order that every replica has, so that each takes the same one of several. */
  networkGateways(): NetworkGateway[] {
    const remote = [...this.#gateways.values()].filter(
      ({ className, labels }) => className === REMOTE_CLASS && (labels[NETWORK_LABEL] ?? '') !== '',
    );
    return remote.sort(byAge).flatMap(networkGatewaysOf);
  }

  #refresh(key: string): void {
    const gateway = this.#gateways.get(key);
    const before = this.#waypoints.get(key) ?? null;
    const after =
      gateway === undefined ? null : waypointOf(gateway, this.#classes.get(gateway.className) ?? null, this.#network);
    if (JSON.stringify(before) === JSON.stringify(after)) return;
    this.#agenda.targets = true;
    if (after === null) this.#waypoints.delete(key);
    else this.#waypoints.set(key, after);
    for (const source of this.#askingSources.get(key)) this.#agenda.sources.add(source);
    for (const service of this.#askingServices.get(key)) this.#agenda.services.add(service);
  }
}

function networkGatewaysOf(gateway: Gateway): NetworkGateway[] {
  const port = gateway.listeners.find(({ protocol }) => protocol === 'HBONE')?.port ?? 0;
  const { namespace, serviceAccount, labels, addresses } = gateway;
  return addresses.flatMap(({ type, value }) => {
    const ip = type === 'IPAddress' ? canonicalIp(value) : null;
    const hostname = type === 'Hostname' ? value : '';
    if (ip === null && hostname === '') return [];
    return [{ network: labels[NETWORK_LABEL]!, namespace, serviceAccount, ip: ip ?? '', hostname, port }];
  });
}

/** What a workload of the network is reached through: the first gateway that says at which port. */
export function addressOfGateway(gateway: NetworkGateway): GatewayAddress {
  const { network, namespace, ip, hostname, port } = gateway;
  return {
    destination: ip === '' ? { kind: 'hostname', namespace, hostname } : { kind: 'address', network, ip },
    port,
  };
}
