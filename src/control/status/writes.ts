import type { KubeApi } from '../../kube/api.ts';
import type { Kind, RejectedObject } from '../kinds.ts';
import type { AddressUpdate, ConditionUpdate } from '../mesh/statuses.ts';
import { AUTHORIZATION_POLICIES } from '../objects/authorization-policy.ts';
import { PEER_AUTHENTICATIONS } from '../objects/peer-authentication.ts';
import { type Condition, ZTUNNEL_ACCEPTED } from '../objects/reported-conditions.ts';
import { SERVICE_ENTRIES } from '../objects/service-entry.ts';
import { WORKLOAD_ENTRIES } from '../objects/workload-entry.ts';
import { objectPath } from '../sources/of-kind.ts';

/** Something to be written to the status of an object. */
export interface StatusWrite {
  /** The object and who writes; two writes about the same exclude each other. */
  readonly about: string;
  /** The same content need not be written again. */
  readonly content: string;
  /** Whether the object is known not to have it: then it is worth writing again after a while. */
  readonly isMissing: boolean;
  perform(api: Pick<KubeApi, 'apply' | 'mergePatch'>): Promise<unknown>;
}

/** Says of an object that cannot be read what is wrong with it. */
export const ACCEPTED = 'culvert.io/Accepted';
const OWN_MANAGER = 'culvert-control';
/** Kinds whose objects get `ACCEPTED` when they are rejected; policies have a condition of istio's for it. */
export const JUDGED_KINDS: readonly Kind[] = [PEER_AUTHENTICATIONS, SERVICE_ENTRIES, WORKLOAD_ENTRIES];

export function conditionWrite(update: ConditionUpdate, now: number): StatusWrite {
  return { ...applied(update, now), isMissing: true };
}

/** Null for a kind whose status belongs to others. */
export function rejectionWrite({ kind, key, generation, reason }: RejectedObject, now: number): StatusWrite | null {
  const condition = { status: 'False', reason: 'Invalid', message: reason.slice(0, MAX_MESSAGE) } as const;
  const common = { kind, key, observedGeneration: generation };
  if (kind.kind === AUTHORIZATION_POLICIES.kind) {
    const conditions = [{ ...condition, type: ZTUNNEL_ACCEPTED }];
    return applied({ ...common, fieldManager: 'istio-ambient-ztunnel-policy', conditions }, now);
  }
  if (!isJudged(kind)) return null;
  return applied({ ...common, fieldManager: OWN_MANAGER, conditions: [{ ...condition, type: ACCEPTED }] }, now);
}

/** Takes `ACCEPTED` away; null for a kind that does not get it. */
export function retraction(kind: Kind, key: string): StatusWrite | null {
  if (!isJudged(kind)) return null;
  return applied({ kind, key, fieldManager: OWN_MANAGER, observedGeneration: 0, conditions: [] }, 0);
}

export function addressWrite({ key, addresses }: AddressUpdate): StatusWrite {
  const status = { addresses };
  return {
    about: `${SERVICE_ENTRIES.kind} ${key} addresses`,
    content: JSON.stringify(status),
    isMissing: true,
    perform: (api) => api.mergePatch(`${objectPath(SERVICE_ENTRIES, key)}/status`, { status }),
  };
}

interface Applied {
  readonly kind: Kind;
  readonly key: string;
  readonly fieldManager: string;
  readonly observedGeneration: number;
  readonly conditions: readonly Condition[];
}

function applied({ kind, key, fieldManager, observedGeneration, conditions }: Applied, now: number): StatusWrite {
  const [namespace, name] = kind.namespaced ? key.split('/') : [undefined, key];
  const lastTransitionTime = `${new Date(now).toISOString().slice(0, 19)}Z`;
  const object = {
    apiVersion: kind.group === '' ? kind.version : `${kind.group}/${kind.version}`,
    kind: kind.kind,
    metadata: namespace === undefined ? { name } : { namespace, name },
    status: { conditions: conditions.map((each) => ({ ...each, observedGeneration, lastTransitionTime })) },
  };
  return {
    about: `${kind.kind} ${key} ${fieldManager}`,
    content: JSON.stringify([conditions, observedGeneration]),
    isMissing: false,
    perform: (api) => api.apply(`${objectPath(kind, key)}/status`, object, fieldManager),
  };
}

function isJudged(kind: Kind): boolean {
  return JUDGED_KINDS.some((judged) => judged.kind === kind.kind && judged.group === kind.group);
}

/** Kubernetes takes 32 KiB; nobody reads that much. */
const MAX_MESSAGE = 1024;
