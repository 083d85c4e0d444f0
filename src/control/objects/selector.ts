import type { Field } from './field.ts';
import type { Labels } from './metadata.ts';
import { sharedData } from './shared.ts';

/**
 * The labels that a policy asks of workloads; null without a selector.
 * @throws Error for anything but `matchLabels`: leaving a condition out would put the policy on other workloads
 */
export function readSelector(selector: Field): Labels | null {
  if (!selector.isPresent) return null;
  expectOnly(selector, ['matchLabels']);
  return sharedData(selector.at('matchLabels').labels());
}

/** @throws Error that names a field which is not known */
export function expectOnly(mapping: Field, known: readonly string[]): void {
  const unknown = mapping.names().find((name) => !known.includes(name));
  if (unknown !== undefined)
    throw new Error(`${mapping.at(unknown).path()} is not known; known are ${known.join(', ')}`);
}
