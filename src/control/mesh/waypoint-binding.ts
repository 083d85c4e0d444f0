/** The waypoints of a service, for its resource and for its status. */
import { type Condition, WAYPOINT_BOUND } from '../objects/reported-conditions.ts';
import type { GatewayAddress, ServiceMessage } from './messages.ts';
import {
  type Attachable,
  type Attachment,
  attachmentOf,
  type Canary,
  canaryOf,
  type Surroundings,
} from './waypoints.ts';

export interface Binding {
  readonly attachment: Attachment;
  readonly waypoint: GatewayAddress | null;
  readonly weightedWaypoints: ServiceMessage['weightedWaypoints'];
  readonly conditions: readonly Condition[];
}

/** @param canaryWeight the object's annotation */
export function bindingOf(object: Attachable, canaryWeight: string, around: Surroundings): Binding {
  // Gateways of the mesh itself are not behind one another.
  if (MANAGED_GATEWAYS.includes(object.labels['gateway.istio.io/managed'] ?? '')) return UNBOUND;
  const attachment = attachmentOf(object, around);
  if (attachment.kind !== 'bound') return { ...UNBOUND, attachment, conditions: conditionsOf(attachment) };
  const { address } = attachment.waypoint;
  const canary = canaryOf(object, attachment.waypoint, canaryWeight, around);
  return {
    attachment,
    waypoint: address,
    weightedWaypoints:
      canary.kind === 'weighted'
        ? [
            { destination: address, weight: 100 - canary.weight },
            { destination: canary.waypoint.address, weight: canary.weight },
          ]
        : [],
    conditions: conditionsOf(attachment, canary),
  };
}

/** Empty where no waypoint is asked for. */
export function conditionsOf(attachment: Attachment, canary: Canary = NO_CANARY): readonly Condition[] {
  switch (attachment.kind) {
    case 'none':
      return [];
    case 'refused':
      return [{ type: WAYPOINT_BOUND, status: 'False', reason: attachment.reason, message: attachment.message }];
    case 'bound': {
      const bound = `attached to waypoint ${attachment.waypoint.key}`;
      const message = canary.kind === 'refused' ? `${bound}; the canary is not used: ${canary.message}` : bound;
      return [{ type: WAYPOINT_BOUND, status: 'True', reason: 'WaypointAccepted', message }];
    }
  }
}

const NO_CANARY: Canary = { kind: 'none' };
const UNBOUND: Binding = { attachment: { kind: 'none' }, waypoint: null, weightedWaypoints: [], conditions: [] };
const MANAGED_GATEWAYS = ['istio.io-mesh-controller', 'istio.io-eastwest-controller'];
