/** Which endpoints of a service are preferred (control-01 §4.2). */
import type { Namespace } from '../objects/namespace.ts';
import type { RoutingAnnotations } from '../objects/service.ts';
import type { LoadBalancing } from './messages.ts';

export type Distribution = 'any' | 'same zone' | 'same node';

export interface LoadBalancingSource {
  readonly isNodeLocal: boolean;
  readonly distribution: Distribution;
}

/** @param field `spec.trafficDistribution` of a Service */
export function distributionOf(
  field: string,
  annotations: RoutingAnnotations,
  namespace: Namespace | null,
): Distribution {
  const ofField = FIELD.get(field);
  if (ofField !== undefined) return ofField;
  const text = annotations.distribution || (namespace?.annotations.distribution ?? '');
  return ANNOTATION.get(text.toLowerCase()) ?? 'any';
}

/** Null: all endpoints are alike. */
export function loadBalancingOf({ isNodeLocal, distribution }: LoadBalancingSource): LoadBalancing | null {
  if (isNodeLocal) return { preference: ['node'], mode: 'strict', healthPolicy: 'OnlyHealthy' };
  switch (distribution) {
    case 'any':
      return null;
    case 'same zone':
      return { preference: ['network', 'region', 'zone'], mode: 'failover', healthPolicy: 'OnlyHealthy' };
    case 'same node':
      return {
        preference: ['network', 'region', 'zone', 'subzone', 'node'],
        mode: 'failover',
        healthPolicy: 'OnlyHealthy',
      };
  }
}

/** The same, with endpoints that are not ready as well. */
export function allowAll(loadBalancing: LoadBalancing | null): LoadBalancing {
  return { preference: [], mode: 'unspecified', ...loadBalancing, healthPolicy: 'AllowAll' };
}

const FIELD = new Map<string, Distribution>([
  ['PreferClose', 'same zone'],
  ['PreferSameZone', 'same zone'],
  ['PreferSameNode', 'same node'],
]);

/** In lower case. */
const ANNOTATION = new Map([...FIELD].map(([name, distribution]) => [name.toLowerCase(), distribution]));
