// Hot path: one look-up per connection.
import type { InboundQuery, Plans, Pod } from '../filters/plane.ts';
import type { SocketAddress } from '../netns/address.ts';
import type { InboundPlan, OutboundPlan } from '../routing/plan.ts';
import type { PlanQuery } from './messages.ts';

/** Plans kept per pod and direction. A client that scans addresses must not fill the memory. */
const MAX_PLANS = 4096;
/** A key holds what the peer sent; an honest one is two addresses, an authority and two names. */
const MAX_KEY_LENGTH = 1024;

/** Asks the control thread; `done` is called once, with null when it could not make a plan. */
export type AskControl = (query: PlanQuery, done: (plan: OutboundPlan | InboundPlan | null) => void) => void;

/** The plans of one thread. A plan is used until the control thread says that it may have changed. */
export class PlanCache implements Plans {
  readonly #ask: AskControl;
  readonly #pods = new Map<string, PodPlans>();

  constructor(ask: AskControl) {
    this.#ask = ask;
  }

  outbound(pod: Pod, target: SocketAddress, peerIp: string, done: (plan: OutboundPlan) => void): OutboundPlan | null {
    const key = `${target.ip} ${target.port} ${peerIp}`;
    const plans = this.#plansOf(pod.info.uid);
    const plan = plans.outbound.get(key);
    if (plan !== undefined) return plan;
    this.#request(plans, `o${key}`, done, { kind: 'outbound', uid: pod.info.uid, target, peerIp }, (answer) =>
      store(plans.outbound, key, answer),
    );
    return null;
  }

  inbound(pod: Pod, query: InboundQuery, done: (plan: InboundPlan) => void): InboundPlan | null {
    const key = keyOf(query);
    const plans = this.#plansOf(pod.info.uid);
    const plan = plans.inbound.get(key);
    if (plan !== undefined) return plan;
    this.#request(plans, `i${key}`, done, { kind: 'inbound', uid: pod.info.uid, query }, (answer) =>
      store(plans.inbound, key, answer),
    );
    return null;
  }

  /** Forgets the plans of a pod; of all pods with null. Answers under way are of before, and are not kept. */
  invalidate(uid: string | null): void {
    if (uid === null) this.#pods.clear();
    else this.#pods.delete(uid);
  }

  #plansOf(uid: string): PodPlans {
    let plans = this.#pods.get(uid);
    if (plans === undefined) {
      plans = { outbound: new Map(), inbound: new Map(), waiting: new Map() };
      this.#pods.set(uid, plans);
    }
    return plans;
  }

  #request<Plan extends OutboundPlan | InboundPlan>(
    plans: PodPlans,
    key: string,
    done: (plan: Plan) => void,
    query: PlanQuery,
    keep: (plan: Plan) => void,
  ): void {
    const waiting = plans.waiting.get(key);
    if (waiting !== undefined) {
      waiting.push(done as (plan: OutboundPlan | InboundPlan) => void);
      return;
    }
    const callbacks = [done as (plan: OutboundPlan | InboundPlan) => void];
    plans.waiting.set(key, callbacks);
    this.#ask(query, (plan) => {
      plans.waiting.delete(key);
      // In a `plans` that was invalidated meanwhile this is kept for nobody.
      if (plan !== null && key.length <= MAX_KEY_LENGTH) keep(plan as Plan);
      for (const callback of callbacks) callback(plan ?? NOT_PLANNED);
    });
  }
}

interface PodPlans {
  readonly outbound: Map<string, OutboundPlan>;
  readonly inbound: Map<string, InboundPlan>;
  readonly waiting: Map<string, ((plan: OutboundPlan | InboundPlan) => void)[]>;
}

function store<Plan>(plans: Map<string, Plan>, key: string, plan: Plan): void {
  if (plans.size >= MAX_PLANS) plans.delete(plans.keys().next().value!);
  plans.set(key, plan);
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
