/** Whether the waypoints that an AuthorizationPolicy is attached to by reference are there (control-02 §1.5). */
import type { AuthorizationPolicy, TargetRef } from '../objects/authorization-policy.ts';
import type { Labels } from '../objects/metadata.ts';
import { type Condition, WAYPOINT_ACCEPTED } from '../objects/reported-conditions.ts';
import type { MeshObjects } from './mesh-objects.ts';
import type { MeshSettings } from './settings.ts';
import { bindingOf } from './waypoint-binding.ts';
import type { Surroundings } from './waypoints.ts';

type Settings = Pick<MeshSettings, 'rootNamespace' | 'domainSuffix'>;

interface Verdict {
  readonly reason: 'Accepted' | 'TargetNotFound' | 'AncestorNotBound' | 'Invalid';
  readonly message: string;
}

/** Of a policy with one target at least. */
export function conditionOfTargets(policy: AuthorizationPolicy, objects: MeshObjects, settings: Settings): Condition {
  const verdicts = policy.targets.map((target) => verdictOn(target, policy, objects, settings));
  const accepted = verdicts.filter(({ reason }) => reason === 'Accepted').length;
  const isPartial = accepted > 0 && accepted < verdicts.length;
  return {
    type: WAYPOINT_ACCEPTED,
    status: accepted > 0 ? 'True' : 'False',
    reason: isPartial ? 'PartiallyInvalid' : verdicts[0]!.reason,
    message: verdicts.map(({ message }) => message).join('; '),
  };
}

function verdictOn(target: TargetRef, policy: AuthorizationPolicy, objects: MeshObjects, settings: Settings): Verdict {
  const { kind, namespace, name } = target;
  const key = `${namespace}/${name}`;
  switch (kind) {
    case 'GatewayClass':
      return verdictOnClass(name, policy, objects, settings);
    case 'Gateway':
      return objects.gateways.waypoint(key) === null ? notFound(`waypoint ${key}`) : boundTo(key);
    case 'Service': {
      const service = objects.services.get(`${namespace}/${name}.${namespace}.svc.${settings.domainSuffix}`);
      const labels = service?.kind === 'Service' ? service.object.labels : null;
      return verdictOnService(`Service ${key}`, namespace, labels, objects);
    }
    case 'ServiceEntry': {
      const labels = objects.sources.get('ServiceEntry', key)?.labels ?? null;
      return verdictOnService(`ServiceEntry ${key}`, namespace, labels, objects);
    }
    default:
      return { reason: 'Invalid', message: `a policy cannot be attached to a ${kind}` };
  }
}

/** A class stands for all of its waypoints in the mesh, which is for who governs the mesh to decide about. */
function verdictOnClass(name: string, policy: AuthorizationPolicy, objects: MeshObjects, settings: Settings): Verdict {
  if (policy.namespace !== settings.rootNamespace) {
    const message = `a policy that is attached to a GatewayClass must be in the root namespace ${settings.rootNamespace}`;
    return { reason: 'Invalid', message };
  }
  const gatewayClass = objects.gateways.class(name);
  if (gatewayClass === null) return notFound(`GatewayClass ${name}`);
  if (gatewayClass.controller !== WAYPOINT_CONTROLLER)
    return { reason: 'Invalid', message: `GatewayClass ${name} is not of controller ${WAYPOINT_CONTROLLER}` };
  return boundTo(name);
}

/** @param labels null for one that is not there */
function verdictOnService(named: string, namespace: string, labels: Labels | null, objects: MeshObjects): Verdict {
  if (labels === null) return notFound(named);
  const around: Surroundings = {
    waypoint: (key) => objects.gateways.waypoint(key),
    namespace: (name) => objects.namespace(name),
  };
  const { attachment } = bindingOf({ kind: 'service', namespace, labels }, '', around);
  if (attachment.kind === 'bound') return boundTo(attachment.waypoint.key);
  return { reason: 'AncestorNotBound', message: `${named} is not bound to a waypoint` };
}

function notFound(named: string): Verdict {
  return { reason: 'TargetNotFound', message: `${named} was not found` };
}

function boundTo(key: string): Verdict {
  return { reason: 'Accepted', message: `bound to ${key}` };
}

const WAYPOINT_CONTROLLER = 'istio.io/mesh-controller';
