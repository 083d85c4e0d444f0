import { type LabelSelector, OPERATORS, type Requirement } from '../../kube/label-selector.ts';
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

/** @throws Error when there is none, or for an operator that is not known */
export function readLabelSelector(selector: Field): LabelSelector {
  if (!selector.isPresent) throw selector.wrong('a selector of namespaces');
  const equal = Object.entries(selector.at('matchLabels').labels());
  const expressions = selector.at('matchExpressions').list();
  return [
    ...equal.map(([key, value]): Requirement => ({ key, operator: 'In', values: [value] })),
    ...expressions.map((expression) => {
      const given = expression.at('operator');
      const operator = OPERATORS.find((known) => known === given.text());
      if (operator === undefined) throw given.wrong(`one of ${OPERATORS.join(', ')}`);
      return { key: expression.at('key').text(), operator, values: expression.at('values').texts() };
    }),
  ];
}
