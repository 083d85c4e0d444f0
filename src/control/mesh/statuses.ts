/** What is to be written to the status of objects, as data: whoever holds the lease writes it. */
import type { Kind } from '../kinds.ts';
import {
  type Condition,
  type ReportedConditions,
  VISIBILITY_APPLIED,
  WAYPOINT_ACCEPTED,
  WAYPOINT_BOUND,
  WAYPOINT_MISSING,
  ZTUNNEL_ACCEPTED,
} from '../objects/reported-conditions.ts';
import type { HostAddress } from '../objects/service-entry.ts';

/** Conditions of one object, all that the field manager owns. Empty: those that are there are to be taken away. */
export interface ConditionUpdate {
  readonly kind: Kind;
  /** `namespace/name` */
  readonly key: string;
  readonly fieldManager: FieldManager;
  readonly observedGeneration: number;
  readonly conditions: readonly Condition[];
}

export type FieldManager =
  | 'istio-ambient-service'
  | 'istio-ambient-workloadentry'
  | 'istio-ambient-ztunnel-policy'
  | 'istio-ambient-waypoint-policy';

/** `status.addresses` of a ServiceEntry, all of it. */
export interface AddressUpdate {
  readonly key: string;
  readonly addresses: readonly HostAddress[];
}

export interface Statuses {
  /** Conditions that objects do not have yet as they should be; each is gone once the object has been seen with them. */
  conditions(): Iterable<ConditionUpdate>;
  addresses(): Iterable<AddressUpdate>;
  /** Called after a batch of changes that has left something to be written. */
  onPending(listener: () => void): void;
}

export interface StatusBook extends Statuses {
  setConditions(update: ConditionUpdate, reported: ReportedConditions): void;
  setAddresses(updates: Iterable<AddressUpdate>): void;
  /** The object is gone. */
  forget(kind: Kind, key: string): void;
  announce(): void;
}

export function createStatusBook(): StatusBook {
  const conditions = new Map<string, ConditionUpdate>();
  let addresses: readonly AddressUpdate[] = [];
  const listeners: (() => void)[] = [];
  let isNew = false;

  return {
    setConditions(update, reported) {
      const name = `${update.kind.kind} ${update.key} ${update.fieldManager}`;
      const owned = reported.filter(({ type }) => OWNED[update.fieldManager].includes(type));
      if (isReported(update, owned)) conditions.delete(name);
      else {
        isNew ||= !isEqual(conditions.get(name), update);
        conditions.set(name, update);
      }
    },
    setAddresses(updates) {
      addresses = [...updates];
      isNew ||= addresses.length > 0;
    },
    forget(kind, key) {
      for (const manager of MANAGERS) conditions.delete(`${kind.kind} ${key} ${manager}`);
    },
    announce() {
      if (!isNew) return;
      isNew = false;
      for (const listener of listeners) listener();
    },
    conditions: () => conditions.values(),
    addresses: () => addresses,
    onPending: (listener) => {
      listeners.push(listener);
    },
  };
}

/** Types of the conditions that each manager writes; of others' it takes none away. */
const OWNED: Readonly<Record<FieldManager, readonly string[]>> = {
  'istio-ambient-service': [WAYPOINT_BOUND, WAYPOINT_MISSING, VISIBILITY_APPLIED],
  'istio-ambient-workloadentry': [WAYPOINT_BOUND],
  'istio-ambient-ztunnel-policy': [ZTUNNEL_ACCEPTED],
  'istio-ambient-waypoint-policy': [WAYPOINT_ACCEPTED],
};
const MANAGERS = Object.keys(OWNED) as FieldManager[];

/** Times are not compared: they are the writer's. */
function isReported({ conditions, observedGeneration }: ConditionUpdate, reported: ReportedConditions): boolean {
  return (
    conditions.length === reported.length &&
    conditions.every((wanted) =>
      reported.some(
        (each) =>
          each.type === wanted.type &&
          each.status === wanted.status &&
          each.reason === wanted.reason &&
          each.message === wanted.message &&
          each.observedGeneration === observedGeneration,
      ),
    )
  );
}

function isEqual(a: ConditionUpdate | undefined, b: ConditionUpdate): boolean {
  return a !== undefined && JSON.stringify(a) === JSON.stringify(b);
}
