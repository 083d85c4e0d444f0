import type { PlannedEndpoint } from './plan.ts';

/**
 * Picks one endpoint, each with the probability of its share of the weights.
 *
 * @param endpoints of a forward plan: at least one, all weights > 0
 * @param random uniform in [0, 1), as Math.random
 */
export function pickEndpoint(endpoints: readonly PlannedEndpoint[], random: () => number): PlannedEndpoint {
  const last = endpoints[endpoints.length - 1]!;
  if (endpoints.length === 1) return last;
  let total = 0;
  for (const endpoint of endpoints) total += endpoint.weight;
  let left = random() * total;
  for (const endpoint of endpoints) {
    left -= endpoint.weight;
    if (left < 0) return endpoint;
  }
  // Only rounding leads here.
  return last;
}
