import type { Field } from './field.ts';

export interface Condition {
  readonly type: string;
  readonly status: 'True' | 'False';
  readonly reason: string;
  readonly message: string;
}

/** Conditions of the types that culvert writes, as an object has them. */
export type ReportedConditions = readonly ReportedCondition[];

export interface ReportedCondition {
  readonly type: string;
  readonly status: string;
  readonly reason: string;
  readonly message: string;
  readonly observedGeneration: number;
}

export const WAYPOINT_BOUND = 'istio.io/WaypointBound';
export const WAYPOINT_MISSING = 'istio.io/WaypointMissing';
export const VISIBILITY_APPLIED = 'istio.io/VisibilityApplied';
export const ZTUNNEL_ACCEPTED = 'ZtunnelAccepted';
export const WAYPOINT_ACCEPTED = 'WaypointAccepted';
const OWN_TYPES = [WAYPOINT_BOUND, WAYPOINT_MISSING, VISIBILITY_APPLIED, ZTUNNEL_ACCEPTED, WAYPOINT_ACCEPTED];

const NONE: ReportedConditions = [];

/** What others wrote may have any shape: it is read without complaint. */
export function readConditions(object: Field): ReportedConditions {
  const { conditions } = mapping(mapping(object.value).status);
  if (!Array.isArray(conditions)) return NONE;
  const own = conditions.map(mapping).filter(({ type }) => OWN_TYPES.includes(type as string));
  return own.length === 0 ? NONE : own.map(readCondition);
}

function readCondition(given: Record<string, unknown>): ReportedCondition {
  const text = (value: unknown) => (typeof value === 'string' ? value : '');
  return {
    type: text(given.type),
    status: text(given.status),
    reason: text(given.reason),
    message: text(given.message),
    observedGeneration: typeof given.observedGeneration === 'number' ? given.observedGeneration : 0,
  };
}

function mapping(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}
