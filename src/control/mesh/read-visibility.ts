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
      const requirements = readLabelSelector(selector);
      selector.at('matchExpressions').list().forEach(checkExpression);
      return requirements;
    });
  return { namespaces, visibility: readDegree(policy.at('visibility')) };
}

/** A mistyped key, or values that are missing, would let a rule hold for every namespace, or for none. */
function checkExpression(expression: Field): void {
  expectOnly(expression, ['key', 'operator', 'values']);
  const key = expression.at('key');
  if (key.text() === '') throw key.wrong('the name of a label');
  const values = expression.at('values');
  const takesValues = ['In', 'NotIn'].includes(expression.at('operator').text());
  if (takesValues !== values.list().length > 0) throw values.wrong(takesValues ? 'at least one value' : 'left out');
}

function readDegree(field: Field): Visibility {
  const name = field.text() || 'PUBLIC';
  const degree = Object.hasOwn(DEGREES, name) ? DEGREES[name] : undefined;
  if (degree === undefined) throw field.wrong(`one of ${Object.keys(DEGREES).join(', ')}`);
  return degree;
}

const DEGREES: Readonly<Partial<Record<string, Visibility>>> = {
  PUBLIC: 'Public',
  NAMESPACE: 'Namespace',
  NONE: 'None',
};
