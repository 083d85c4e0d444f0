import type { Kind } from '../kinds.ts';
import { Field } from './field.ts';
import { annotation, type Labels, type Metadata, readMetadata } from './metadata.ts';
import { type ReportedConditions, readConditions } from './reported-conditions.ts';
import { sharedData } from './shared.ts';

export interface Service extends Metadata {
  /** Addresses as given; none for a headless service. */
  readonly clusterIps: readonly string[];
  /** Empty: selects nothing. */
  readonly selector: Labels;
  readonly ports: readonly ServicePort[];
  readonly ipFamilies: readonly string[];
  readonly isNodeLocal: boolean;
  readonly trafficDistribution: string;
  readonly publishNotReady: boolean;
  readonly annotations: RoutingAnnotations;
  readonly reported: ReportedConditions;
}

export interface ServicePort {
  readonly name: string;
  readonly port: number;
  readonly protocol: string;
  /** A number, or the name of a container's port. */
  readonly target: number | string;
  readonly appProtocol: string;
}

/** Annotations that a service and its namespace may have. */
export interface RoutingAnnotations {
  readonly distribution: string;
  readonly canaryWeight: string;
}

export const SERVICES: Kind<Service> = {
  kind: 'Service',
  group: '',
  version: 'v1',
  plural: 'services',
  namespaced: true,
  optional: false,
  read: readService,
};

function readService(object: unknown): Service | null {
  const service = Field.of(object);
  const metadata = readMetadata(service);
  const spec = service.at('spec');
  if (spec.at('type').text() === 'ExternalName') return null;
  const listed = spec.at('clusterIPs').texts();
  const ips = listed.length > 0 ? listed : [spec.at('clusterIP').text()];
  return {
    ...metadata,
    clusterIps: ips.filter((ip) => ip !== '' && ip !== 'None'),
    selector: sharedData(spec.at('selector').labels()),
    ports: spec.at('ports').list().map(readPort),
    ipFamilies: sharedData(spec.at('ipFamilies').texts()),
    isNodeLocal: spec.at('internalTrafficPolicy').text() === 'Local',
    trafficDistribution: spec.at('trafficDistribution').text(),
    publishNotReady: spec.at('publishNotReadyAddresses').flag(),
    annotations: readRoutingAnnotations(service),
    reported: readConditions(service),
  };
}

export function readRoutingAnnotations(object: Field): RoutingAnnotations {
  return {
    distribution: annotation(object, 'networking.istio.io/traffic-distribution'),
    canaryWeight: annotation(object, 'istio.io/use-waypoint-canary-weight'),
  };
}

function readPort(port: Field): ServicePort {
  const number = port.at('port').integer(1, 65535);
  if (number === null) throw port.at('port').wrong('a port');
  const target = port.at('targetPort');
  return sharedData({
    name: port.at('name').text(),
    port: number,
    protocol: port.at('protocol').text() || 'TCP',
    // The API server fills it in; a file may leave it out.
    target: typeof target.value === 'string' ? target.value : target.port() || number,
    appProtocol: port.at('appProtocol').text(),
  });
}
