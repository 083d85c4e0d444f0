import { parseCidr, parsePort } from '../../netns/address.ts';
import type { Kind } from '../kinds.ts';
import { Field } from './field.ts';
import { isTrue } from './go-bool.ts';
import { annotation, type Labels, type Metadata, readMetadata, readMetadataOfMalformed } from './metadata.ts';
import { type ReportedConditions, readConditions } from './reported-conditions.ts';
import { expectOnly, readSelector } from './selector.ts';

export interface AuthorizationPolicy extends Metadata {
  readonly isDryRun: boolean;
  /** Gateways, Services … that it is attached to, which makes it one for waypoints. */
  readonly targets: readonly TargetRef[];
  /** Null without one: the namespace, or the mesh in the root namespace. */
  readonly selector: Labels | null;
  readonly action: (typeof ACTIONS)[number];
  readonly rules: readonly Rule[];
  readonly reported: ReportedConditions;
}

export interface TargetRef {
  /** "" for the core group. */
  readonly group: string;
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
}

/** What one of the sources does, to one of the operations, while all of `when` holds. */
export interface Rule {
  readonly to: readonly Values[];
  readonly from: readonly Values[];
  readonly when: readonly When[];
}

/** Value lists by the field's name in YAML; a field that is absent or empty is left out. */
export type Values = Readonly<Partial<Record<ValueField, readonly string[]>>>;
export type ValueField = (typeof SOURCE_FIELDS)[number] | (typeof OPERATION_FIELDS)[number];

export interface When {
  readonly key: string;
  readonly values: readonly string[];
  readonly notValues: readonly string[];
}

export const AUTHORIZATION_POLICIES: Kind<AuthorizationPolicy> = {
  kind: 'AuthorizationPolicy',
  group: 'security.istio.io',
  version: 'v1',
  plural: 'authorizationpolicies',
  namespaced: true,
  optional: true,
  read: readAuthorizationPolicy,
  standIn: denyInstead,
};

const ACTIONS = ['ALLOW', 'DENY', 'AUDIT', 'CUSTOM'] as const;
const SOURCE_FIELDS = [
  'principals',
  'notPrincipals',
  'requestPrincipals',
  'notRequestPrincipals',
  'namespaces',
  'notNamespaces',
  'serviceAccounts',
  'notServiceAccounts',
  'ipBlocks',
  'notIpBlocks',
  'remoteIpBlocks',
  'notRemoteIpBlocks',
  'trustDomains',
  'notTrustDomains',
] as const;
const OPERATION_FIELDS = [
  'hosts',
  'notHosts',
  'ports',
  'notPorts',
  'methods',
  'notMethods',
  'paths',
  'notPaths',
] as const;

/**
 * Strict, because each condition that were left out would change whom the policy lets in: unknown fields, empty values,
 * ports and addresses that are none are refused by name.
 */
function readAuthorizationPolicy(object: unknown): AuthorizationPolicy {
  const policy = Field.of(object);
  const spec = policy.at('spec');
  expectOnly(spec, ['selector', 'targetRef', 'targetRefs', 'action', 'provider', 'rules']);
  const metadata = readMetadata(policy);
  return {
    ...metadata,
    isDryRun: isTrue(annotation(policy, 'istio.io/dry-run')),
    targets: targetsOf(spec).map((target) => readTarget(target, metadata.namespace)),
    selector: readSelector(spec.at('selector')),
    action: readAction(spec),
    rules: spec.at('rules').list().map(readRule),
    reported: readConditions(policy),
  };
}

/** Denies all that the policy selects, or might select: nobody can say whom it was to let in. */
function denyInstead(object: unknown): AuthorizationPolicy | null {
  const policy = Field.of(object);
  const spec = policy.at('spec');
  const known = <T>(read: () => T, unknown: T): T => {
    try {
      return read();
    } catch {
      return unknown;
    }
  };
  const action = known(() => readAction(spec), 'DENY');
  if (known(() => targetsOf(spec).length > 0, false) || action === 'AUDIT' || action === 'CUSTOM') return null;
  return {
    ...readMetadataOfMalformed(policy),
    isDryRun: known(() => isTrue(annotation(policy, 'istio.io/dry-run')), false),
    targets: [],
    selector: known(() => readSelector(spec.at('selector')), null),
    action: 'DENY',
    rules: [{ to: [], from: [], when: [] }],
    reported: readConditions(policy),
  };
}

function targetsOf(spec: Field): Field[] {
  const one = spec.at('targetRef');
  return [...(one.isPresent ? [one] : []), ...spec.at('targetRefs').list()];
}

function readTarget(target: Field, namespace: string): TargetRef {
  const [kind, name] = [target.at('kind').text(), target.at('name').text()];
  if (kind === '' || name === '') throw target.wrong('a reference with kind and name');
  return { group: target.at('group').text(), kind, name, namespace: target.at('namespace').text() || namespace };
}

function readAction(spec: Field): AuthorizationPolicy['action'] {
  const given = spec.at('action');
  const action = ACTIONS.find((known) => known === (given.text() || 'ALLOW'));
  if (action === undefined) throw given.wrong(`one of ${ACTIONS.join(', ')}`);
  return action;
}

function readRule(rule: Field): Rule {
  // A list entry with nothing behind it would be a rule without conditions, which matches everything.
  if (!rule.isPresent) throw rule.wrong('a rule ({} for one that matches everything)');
  expectOnly(rule, ['from', 'to', 'when']);
  return {
    to: rule
      .at('to')
      .list()
      .map((entry) => readEntry(entry, 'operation', OPERATION_FIELDS)),
    from: rule
      .at('from')
      .list()
      .map((entry) => readEntry(entry, 'source', SOURCE_FIELDS)),
    when: rule.at('when').list().map(readWhen),
  };
}

function readEntry(entry: Field, name: string, fields: readonly ValueField[]): Values {
  expectOnly(entry, [name]);
  const mapping = entry.at(name);
  expectOnly(mapping, fields);
  const values = fields.flatMap((field) => {
    const list = readValues(mapping.at(field), CHECKS[field]);
    return list.length === 0 ? [] : [[field, list] as const];
  });
  if (values.length === 0) throw mapping.wrong(`one or more of ${fields.join(', ')}`);
  return Object.fromEntries(values);
}

function readWhen(when: Field): When {
  expectOnly(when, ['key', 'values', 'notValues']);
  const key = when.at('key').text();
  if (key === '') throw when.at('key').wrong('the name of an attribute');
  const check = WHEN_CHECKS.get(key);
  const [values, notValues] = [readValues(when.at('values'), check), readValues(when.at('notValues'), check)];
  if (values.length === 0 && notValues.length === 0) throw when.wrong('a condition with values or notValues');
  return { key, values, notValues };
}

/** What a value must be, other than not empty. */
interface Check {
  readonly wanted: string;
  holds(value: string): boolean;
}

const PORT: Check = { wanted: 'a port from 0 to 65535', holds: (value) => parsePort(value) !== null };
const BLOCK: Check = { wanted: 'an address or a CIDR block', holds: (value) => parseCidr(value) !== null };
const CHECKS: Partial<Record<ValueField, Check>> = {
  ports: PORT,
  notPorts: PORT,
  ipBlocks: BLOCK,
  notIpBlocks: BLOCK,
};
const WHEN_CHECKS = new Map([
  ['source.ip', BLOCK],
  ['destination.ip', BLOCK],
  ['destination.port', PORT],
]);

function readValues(list: Field, check: Check | undefined): readonly string[] {
  return list.list().map((item) => {
    const value = item.text();
    if (value === '') throw item.wrong('a text that is not empty');
    if (check !== undefined && !check.holds(value)) throw item.wrong(check.wanted);
    return value;
  });
}
