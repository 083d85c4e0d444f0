// Hot path: one pick per connection.
import { formatIpv4, formatSocketAddress } from '../netns/address.ts';
import { textAt } from '../state/text-list.ts';
import { nameInUid } from '../state/types.ts';
import type { EndpointGroup, OutboundPlan, PlannedEndpoint } from './plan.ts';

/** The endpoints of a plan by number, 0..size-1, the nearest first; each is made when it is first asked for. */
export class EndpointSet {
  readonly size: number;
  /** Positions of groups: each tier goes from one of them to before the next. At least two. */
  readonly #tiers: number[] = [];
  readonly #groups: readonly EndpointGroup[];
  /** Number of the first endpoint of each group, and the weight of all before it; one more at the end. */
  readonly #firsts: number[] = [0];
  readonly #weights: number[] = [0];
  readonly #made = new Map<number, PlannedEndpoint>();

  /** @param groups at least one, none empty, the lowest tier first */
  constructor(groups: readonly EndpointGroup[]) {
    this.#groups = groups;
    for (const [at, { tier, ips, weight }] of groups.entries()) {
      if (tier !== groups[at - 1]?.tier) this.#tiers.push(at);
      this.#firsts.push(this.#firsts.at(-1)! + ips.length);
      this.#weights.push(this.#weights.at(-1)! + ips.length * weight);
    }
    this.#tiers.push(groups.length);
    this.size = this.#firsts.at(-1)!;
  }

  /** How many tiers there are, which go by their order here; at least one. */
  get tiers(): number {
    return this.#tiers.length - 1;
  }

  /** The tier of one of these endpoints, 0..tiers-1: `endpoint.tier` is a rank, and ranks have gaps. */
  tierOf(endpoint: PlannedEndpoint): number {
    return this.#tiers.findIndex((at) => this.#groups[at]!.tier === endpoint.tier);
  }

  /** The number of the first endpoint of a tier. */
  startOf(tier: number): number {
    return this.#firsts[this.#tiers[tier]!]!;
  }

  /** The number behind the last endpoint of a tier. */
  endOf(tier: number): number {
    return this.#firsts[this.#tiers[tier + 1]!]!;
  }

  at(index: number): PlannedEndpoint {
    let endpoint = this.#made.get(index);
    if (endpoint === undefined) {
      const group = lastNotAbove(this.#firsts, index);
      endpoint = make(this.#groups[group]!, index - this.#firsts[group]!);
      this.#made.set(index, endpoint);
    }
    return endpoint;
  }

  /** The number of an endpoint of the tier, each with the probability of its share of the weights; `draw` uniform in [0, 1). */
  indexAt(draw: number, tier = 0): number {
    const [first, end] = [this.#tiers[tier]!, this.#tiers[tier + 1]!];
    const below = this.#weights[first]!;
    const point = below + draw * (this.#weights[end]! - below);
    const group = Math.min(lastNotAbove(this.#weights, point), end - 1);
    const { weight, ips } = this.#groups[group]!;
    // Rounding may lead past the last one.
    const at = Math.min(Math.floor((point - this.#weights[group]!) / weight), ips.length - 1);
    return this.#firsts[group]! + at;
  }

  *[Symbol.iterator](): IterableIterator<PlannedEndpoint> {
    for (let index = 0; index < this.size; index++) yield this.at(index);
  }
}

const sets = new WeakMap<OutboundPlan, EndpointSet>();

/** The endpoints of a forward plan; always the same object for the same plan. */
export function endpointsOf(plan: Extract<OutboundPlan, { kind: 'forward' }>): EndpointSet {
  let set = sets.get(plan);
  if (set === undefined) {
    set = new EndpointSet(plan.groups);
    sets.set(plan, set);
  }
  return set;
}

function make(group: EndpointGroup, at: number): PlannedEndpoint {
  const { authority, port, protocol, tier, weight, expectedIdentities, inner, hostname, destination } = group;
  const uid = textAt(group.uids, at);
  const given = group.ips[at]!;
  const ip = typeof given === 'number' ? formatIpv4(given) : given;
  const own = authority?.kind === 'own' ? formatSocketAddress({ ip, port: authority.port }) : null;
  return {
    uid,
    address: { ip, port },
    tier,
    weight,
    protocol,
    authority: own ?? (authority?.kind === 'fixed' ? authority.text : ''),
    expectedIdentities,
    inner,
    hostname,
    destination: destination && { ...destination, uid, name: group.names.get(at) ?? nameInUid(uid) },
    healthKey: healthKeyOf(group, ip, own),
  };
}

/**
 * An application port can fail alone. A waypoint is the same for every destination; what is beyond a gateway is not.
 */
function healthKeyOf({ authority, inner, port }: EndpointGroup, ip: string, own: string | null): string {
  const address = own ?? formatSocketAddress({ ip, port });
  return inner !== null && authority?.kind === 'fixed' ? `${address} ${authority.text}` : address;
}

/** Position of the last of the ascending numbers that is not above `value`; `sorted[0]` is not. */
function lastNotAbove(sorted: readonly number[], value: number): number {
  let [low, high] = [0, sorted.length - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (sorted[middle]! <= value) low = middle;
    else high = middle - 1;
  }
  return low;
}
