import { canonicalIp } from '../../netns/address.ts';
import type { Kind } from '../kinds.ts';
import { Field } from './field.ts';
import { type Metadata, readMetadata } from './metadata.ts';
import { sharedData } from './shared.ts';

export interface EndpointSlice extends Metadata {
  /** Name of the Service in the slice's namespace. */
  readonly service: string;
  /** Uid of each pod that is an endpoint, by `namespace/name`. */
  readonly pods: ReadonlyMap<string, string>;
  /** Endpoints that are no pods. */
  readonly others: readonly SliceEndpoint[];
  readonly ports: readonly SlicePort[];
}

export interface SliceEndpoint {
  /** Canonical. */
  readonly ip: string;
  readonly isReady: boolean;
}

/** TCP only. */
export interface SlicePort {
  readonly name: string;
  readonly port: number;
}

export const ENDPOINT_SLICES: Kind<EndpointSlice> = {
  kind: 'EndpointSlice',
  group: 'discovery.k8s.io',
  version: 'v1',
  plural: 'endpointslices',
  namespaced: true,
  optional: false,
  read: readEndpointSlice,
};

function readEndpointSlice(object: unknown): EndpointSlice | null {
  const slice = Field.of(object);
  const metadata = readMetadata(slice);
  const service = metadata.labels['kubernetes.io/service-name'] ?? '';
  if (service === '' || slice.at('addressType').text() === 'FQDN') return null;
  const pods = new Map<string, string>();
  const others = new Map<string, SliceEndpoint>();
  for (const endpoint of slice.at('endpoints').list()) {
    const target = endpoint.at('targetRef');
    if (target.at('kind').text() === 'Pod') {
      const namespace = target.at('namespace').text() || metadata.namespace;
      pods.set(`${namespace}/${target.at('name').text()}`, target.at('uid').text());
      continue;
    }
    // The addresses of one endpoint are names of the same thing; the first is the one to use.
    const ip = canonicalIp(endpoint.at('addresses').texts()[0] ?? '');
    const ready = endpoint.at('conditions').at('ready');
    if (ip !== null && !others.has(ip)) others.set(ip, { ip, isReady: !ready.isPresent || ready.flag() });
  }
  return { ...metadata, service, pods, others: [...others.values()], ports: readPorts(slice) };
}

function readPorts(slice: Field): readonly SlicePort[] {
  const ports = slice
    .at('ports')
    .list()
    .flatMap((port) => {
      const number = port.at('port').port();
      const isTcp = (port.at('protocol').text() || 'TCP') === 'TCP';
      return number === null || !isTcp ? [] : [{ name: port.at('name').text(), port: number }];
    });
  return sharedData(ports);
}
