import type { LabelSelector } from '../../kube/label-selector.ts';
import type { Kind } from '../kinds.ts';
import { Field } from './field.ts';
import { annotation, type Metadata, readMetadata } from './metadata.ts';
import { readLabelSelector } from './selector.ts';

export interface Gateway extends Metadata {
  readonly className: string;
  /** "" when not annotated. */
  readonly inboundBinding: string;
  readonly serviceAccount: string;
  readonly listeners: readonly Listener[];
  /** Those of the status: where the gateway really is. */
  readonly addresses: readonly { readonly type: string; readonly value: string }[];
}

export interface Listener {
  readonly port: number;
  readonly protocol: string;
  /** Namespaces whose objects may use the listener. */
  readonly allowed: AllowedNamespaces;
}

export type AllowedNamespaces =
  | { readonly from: 'All' | 'Same' | 'None' }
  | { readonly from: 'Selector'; readonly selector: LabelSelector };

const GATEWAY_API = { group: 'gateway.networking.k8s.io', version: 'v1', optional: true } as const;

export const GATEWAYS: Kind<Gateway> = {
  ...GATEWAY_API,
  kind: 'Gateway',
  plural: 'gateways',
  namespaced: true,
  read: readGateway,
};

export interface GatewayClass extends Metadata {
  readonly controller: string;
  readonly inboundBinding: string;
}

export const GATEWAY_CLASSES: Kind<GatewayClass> = {
  ...GATEWAY_API,
  kind: 'GatewayClass',
  plural: 'gatewayclasses',
  namespaced: false,
  read(object) {
    const gatewayClass = Field.of(object);
    return {
      ...readMetadata(gatewayClass, false),
      controller: gatewayClass.at('spec').at('controllerName').text(),
      inboundBinding: annotation(gatewayClass, INBOUND_BINDING),
    };
  },
};

const INBOUND_BINDING = 'ambient.istio.io/waypoint-inbound-binding';

function readGateway(object: unknown): Gateway {
  const gateway = Field.of(object);
  const metadata = readMetadata(gateway);
  const className = gateway.at('spec').at('gatewayClassName').text();
  return {
    ...metadata,
    className,
    inboundBinding: annotation(gateway, INBOUND_BINDING),
    serviceAccount: annotation(gateway, 'gateway.istio.io/service-account') || defaultAccount(metadata.name, className),
    listeners: gateway.at('spec').at('listeners').list().map(readListener),
    addresses: gateway
      .at('status')
      .at('addresses')
      .list()
      .map((address) => ({ type: address.at('type').text() || 'IPAddress', value: address.at('value').text() })),
  };
}

/** A Gateway of this class stands for one of another cluster. */
export const REMOTE_CLASS = 'istio-remote';

function defaultAccount(name: string, className: string): string {
  return className === REMOTE_CLASS ? `${name}-${className}` : name;
}

function readListener(listener: Field): Listener {
  return {
    port: listener.at('port').port() ?? 0,
    protocol: listener.at('protocol').text(),
    allowed: readAllowed(listener.at('allowedRoutes').at('namespaces')),
  };
}

function readAllowed(namespaces: Field): AllowedNamespaces {
  const from = namespaces.at('from').text() || 'Same';
  switch (from) {
    case 'All':
    case 'Same':
    case 'None':
      return { from };
    case 'Selector':
      return { from, selector: readLabelSelector(namespaces.at('selector')) };
    default:
      throw namespaces.at('from').wrong('All, Same, None or Selector');
  }
}
