import { messageOf } from '../../errors.ts';
import { Field } from '../objects/field.ts';
import { expectOnly, readLabelSelector } from '../objects/selector.ts';
import type { ServiceEntryVisibility, Visibility } from './settings.ts';

/**
 * `serviceEntryVisibility` as the mesh configuration of istiod has it, in YAML or JSON.
 * @throws Error that names the field: a rule that is left out would show services to more than it says
 */
export async function readVisibility(yaml: string): Promise<ServiceEntryVisibility> {
  const { parse } = await import('yaml');
  let given: unknown;
  try {
    given = parse(yaml);
  } catch (cause) {
    throw new Error(`it is not YAML: ${messageOf(cause)}`, { cause });
  }
  const visibility = Field.of(given);
  // There are no sidecars here that it could be applied to.
  expectOnly(visibility, ['defaultVisibility', 'policies', 'applyToSidecars']);
  return {
    rules: visibility.at('policies').list().map(readRule),
    otherwise: readDegree(visibility.at('defaultVisibility')),
  };
}

function readRule(policy: Field): ServiceEntryVisibility['rules'][number] {
  expectOnly(policy, ['visibility', 'matchingRules']);
  const namespaces = policy
    .at('matchingRules')
    .list()
    .flatMap((rule) => {
      expectOnly(rule, ['namespaceSelector']);
      const selector = rule.at('namespaceSelector');
      expectOnly(selector, ['matchLabels', 'matchExpressions']);
      return readLabelSelector(selector);
    });
  return { namespaces, visibility: readDegree(policy.at('visibility')) };
}

function readDegree(field: Field): Visibility {
  const degree = DEGREES[field.text() || 'PUBLIC'];
  if (degree === undefined) throw field.wrong(`one of ${Object.keys(DEGREES).join(', ')}`);
  return degree;
}

const DEGREES: Readonly<Partial<Record<string, Visibility>>> = {
  PUBLIC: 'Public',
  NAMESPACE: 'Namespace',
  NONE: 'None',
};
