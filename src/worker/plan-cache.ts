// Hot path: one look-up per connection.
import type { InboundQuery, Plans, Pod } from '../filters/plane.ts';
import type { SocketAddress } from '../netns/address.ts';
import type { InboundPlan, OutboundPlan } from '../routing/plan.ts';
import type { PlanQuery } from './messages.ts';

/** A key holds what the peer sent; an honest one is two addresses, an authority and two names. */
const MAX_KEY_LENGTH = 1024;

/**
 * Asks the control thread; `done` is called once with the plan and its number, with null when it could not make a plan.
 */
export type AskControl = (
  query: PlanQuery,
  done: (plan: OutboundPlan | InboundPlan | null, id: number) => void,
) => void;

/**
 * The plans of one thread. A plan is used until the control thread says that it is invalid (plan-registry.ts), which also
 * bounds how many there are.
 */
export class PlanCache implements Plans {
  readonly #ask: AskControl;
  readonly #pods = new Map<string, PodPlans>();
  readonly #kept = new Map<number, KeptPlan>();

  constructor(ask: AskControl) {
    this.#ask = ask;
  }

  get size(): number {
    return this.#kept.size;
  }

  outbound(pod: Pod, target: SocketAddress, peerIp: string, done: (plan: OutboundPlan) => void): OutboundPlan | null {
    const key = `${target.ip} ${target.port} ${peerIp}`;
    const plans = this.#plansOf(pod.info.uid);
    const plan = plans.outbound.get(key);
    if (plan !== undefined) return plan;
    this.#request(plans, plans.outbound, key, done, { kind: 'outbound', uid: pod.info.uid, target, peerIp });
    return null;
  }

  inbound(pod: Pod, query: InboundQuery, done: (plan: InboundPlan) => void): InboundPlan | null {
    const key = keyOf(query);
    const plans = this.#plansOf(pod.info.uid);
    const plan = plans.inbound.get(key);
    if (plan !== undefined) return plan;
    this.#request(plans, plans.inbound, key, done, { kind: 'inbound', uid: pod.info.uid, query });
    return null;
  }

  /** Forgets plans by their numbers. Those that wait for an answer get one that is of after. */
  invalidate(ids: readonly number[]): void {
    for (const id of ids) {
      const kept = this.#kept.get(id);
      if (kept === undefined) continue;
      this.#kept.delete(id);
      kept.plans.delete(kept.key);
    }
  }

  /** Forgets everything about a pod. Answers under way are given, but not kept. */
  forget(uid: string): void {
    const plans = this.#pods.get(uid);
    if (plans === undefined) return;
    this.#pods.delete(uid);
    plans.gone = true;
    for (const [id, kept] of this.#kept) {
      if (kept.plans === plans.outbound || kept.plans === plans.inbound) this.#kept.delete(id);
    }
  }

  #plansOf(uid: string): PodPlans {
    let plans = this.#pods.get(uid);
    if (plans === undefined) {
      plans = { outbound: new Map(), inbound: new Map(), waiting: new Map(), gone: false };
      this.#pods.set(uid, plans);
    }
    return plans;
  }

  #request<Plan extends OutboundPlan | InboundPlan>(
    pod: PodPlans,
    plans: Map<string, Plan>,
    key: string,
    done: (plan: Plan) => void,
    query: PlanQuery,
  ): void {
    const question = query.kind + key;
    const waiting = pod.waiting.get(question);
    if (waiting !== undefined) {
      waiting.push(done as (plan: OutboundPlan | InboundPlan) => void);
      return;
    }
    const callbacks = [done as (plan: OutboundPlan | InboundPlan) => void];
    pod.waiting.set(question, callbacks);
    this.#ask(query, (plan, id) => {
      pod.waiting.delete(question);
      if (plan !== null && !pod.gone && key.length <= MAX_KEY_LENGTH) {
        plans.set(key, plan as Plan);
        this.#kept.set(id, { plans: plans as KeptPlan['plans'], key });
      }
      for (const callback of callbacks) callback(plan ?? NOT_PLANNED);
    });
  }
}

interface PodPlans {
  readonly outbound: Map<string, OutboundPlan>;
  readonly inbound: Map<string, InboundPlan>;
  readonly waiting: Map<string, ((plan: OutboundPlan | InboundPlan) => void)[]>;
  gone: boolean;
}

interface KeptPlan {
  readonly plans: Map<string, OutboundPlan | InboundPlan> | Map<string, OutboundPlan> | Map<string, InboundPlan>;
  readonly key: string;
}

function keyOf(query: InboundQuery): string {
  if (query.kind === 'plaintext')
    return `${query.peerIp} ${query.originalDestination.ip} ${query.originalDestination.port}`;
  const { localIp, peerIp, authority, forwardedHost, fromNetwork } = query;
  // Header values may hold spaces but no line feeds (RFC 9113 §8.2.1): no two queries share a key.
  return `${localIp}\n${peerIp}\n${authority}\n${forwardedHost ?? ''}\n${fromNetwork ?? ''}`;
}

/** For a connection whose route could not be planned; fits either direction. Never cached. */
const NOT_PLANNED = {
  kind: 'reject',
  status: 503,
  reason: { tag: 'not-planned', message: 'the route could not be planned because of an error in the agent' },
} as const;
