import { CulvertError, messageOf } from '../../errors.ts';
import { type LabelSelector, matchesLabels, OPERATORS, type Requirement } from '../../kube/label-selector.ts';
import type { Labels } from '../../kube/object.ts';

/** A pod is selected when one entry matches it and its namespace (spec node-02 §2.2). None selects nothing. */
export type EnrolmentSelectors = readonly { readonly pod: LabelSelector; readonly namespace: LabelSelector }[];

/** @throws CulvertError 'SELECTOR_INVALID' naming the entry and the field */
export async function parseSelectors(yaml: string): Promise<EnrolmentSelectors> {
  const { parse } = await import('yaml');
  let list: unknown;
  try {
    list = parse(yaml);
  } catch (cause) {
    throw new CulvertError('SELECTOR_INVALID', `not YAML: ${messageOf(cause)}`, { cause });
  }
  if (list === null) return [];
  if (!Array.isArray(list)) throw invalid('selectors', 'a list');
  return list.map((entry, index) => {
    const at = `selectors[${index}]`;
    const fields = mapping(entry, at, ['podSelector', 'namespaceSelector']);
    return {
      pod: labelSelector(fields.podSelector, `${at}.podSelector`),
      namespace: labelSelector(fields.namespaceSelector, `${at}.namespaceSelector`),
    };
  });
}

export function isSelected(selectors: EnrolmentSelectors, pod: Labels, namespace: Labels): boolean {
  return selectors.some((entry) => matchesLabels(entry.pod, pod) && matchesLabels(entry.namespace, namespace));
}

/** Whether pods of the namespace are enrolled for its sake: an entry that asks something of it is content. */
export function selectsNamespace(selectors: EnrolmentSelectors, namespace: Labels): boolean {
  return selectors.some((entry) => entry.namespace.length > 0 && matchesLabels(entry.namespace, namespace));
}

function labelSelector(given: unknown, at: string): LabelSelector {
  if (given === undefined || given === null) return [];
  const { matchLabels, matchExpressions } = mapping(given, at, ['matchLabels', 'matchExpressions']);
  const equal = Object.entries(mapping(matchLabels ?? {}, `${at}.matchLabels`, null)).map(
    ([key, value]): Requirement => ({ key, operator: 'In', values: [text(value, `${at}.matchLabels.${key}`)] }),
  );
  if (matchExpressions !== undefined && matchExpressions !== null && !Array.isArray(matchExpressions)) {
    throw invalid(`${at}.matchExpressions`, 'a list');
  }
  const expressions = ((matchExpressions as unknown[] | null | undefined) ?? []).map((given, index) =>
    requirement(given, `${at}.matchExpressions[${index}]`),
  );
  return [...equal, ...expressions];
}

function requirement(given: unknown, at: string): Requirement {
  const fields = mapping(given, at, ['key', 'operator', 'values']);
  const operator = OPERATORS.find((known) => known === fields.operator);
  if (operator === undefined) throw invalid(`${at}.operator`, `one of ${OPERATORS.join(', ')}`);
  const values = fields.values ?? [];
  if (!Array.isArray(values)) throw invalid(`${at}.values`, 'a list');
  const takesValues = operator === 'In' || operator === 'NotIn';
  // As the API server has it: a set operator needs a set, the others must not have one.
  if (takesValues === (values.length === 0)) throw invalid(`${at}.values`, takesValues ? 'not empty' : 'empty');
  const key = text(fields.key, `${at}.key`);
  if (key === '') throw invalid(`${at}.key`, 'not empty');
  return { key, operator, values: values.map((value, index) => text(value, `${at}.values[${index}]`)) };
}

/** An unknown field is refused: a misspelt `podSelector` would select every pod. */
function mapping(given: unknown, at: string, known: readonly string[] | null): Record<string, unknown> {
  if (typeof given !== 'object' || given === null || Array.isArray(given)) throw invalid(at, 'a mapping');
  const unknown = known === null ? undefined : Object.keys(given).find((key) => !known.includes(key));
  if (unknown !== undefined) throw invalid(`${at}.${unknown}`, `left out: known are ${known!.join(', ')}`);
  return given as Record<string, unknown>;
}

function text(given: unknown, at: string): string {
  if (typeof given !== 'string') throw invalid(at, 'a text (put it in quotes)');
  return given;
}

function invalid(at: string, what: string): CulvertError {
  return new CulvertError('SELECTOR_INVALID', `${at} must be ${what}`);
}
