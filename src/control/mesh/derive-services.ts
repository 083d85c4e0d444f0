/** Published services → resources. */

import { isTrue } from '../objects/go-bool.ts';
import type { Condition } from '../objects/reported-conditions.ts';
import { allocatedTo } from './allocation.ts';
import type { MeshObjects } from './mesh-objects.ts';
import type { ServiceMessage } from './messages.ts';
import type { PublishedService } from './published-services.ts';
import { messageOfService, messageOfServiceEntry, type ServiceContext } from './service-messages.ts';
import type { MeshSettings } from './settings.ts';
import { bindingOf } from './waypoint-binding.ts';
import type { Surroundings } from './waypoints.ts';

export interface DerivedService {
  readonly message: ServiceMessage;
  /** Of the object that it comes of. */
  readonly conditions: readonly Condition[];
}

export function deriveService(
  service: PublishedService,
  objects: MeshObjects,
  settings: MeshSettings,
  around: Surroundings,
): DerivedService {
  const { object, hostname } = service;
  const { namespace: name, labels } = object;
  const namespace = objects.namespace(name);
  const { waypoint, weightedWaypoints, conditions } = bindingOf(
    { kind: 'service', namespace: name, labels, isLocal: service.visibility === 'Namespace' },
    object.annotations.canaryWeight,
    around,
  );
  const ingress = labels[INGRESS_USE_WAYPOINT] ?? namespace?.labels[INGRESS_USE_WAYPOINT] ?? '';
  const context: ServiceContext = {
    hostname,
    network: objects.network,
    namespace,
    isCanonical: objects.services.isCanonical(service),
    visibility: service.visibility,
    waypoint,
    weightedWaypoints,
    ingressUseWaypoint: waypoint !== null && isTrue(ingress),
  };
  const message =
    service.kind === 'Service'
      ? messageOfService(service.object, context)
      : messageOfServiceEntry(service.object, allocatedTo(service.object, hostname, settings), context);
  return { message, conditions };
}

const INGRESS_USE_WAYPOINT = 'istio.io/ingress-use-waypoint';
