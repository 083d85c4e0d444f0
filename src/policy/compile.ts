import { type Cidr, parseCidr } from '../netns/address.ts';
import type { MeshState } from '../state/mesh-state.ts';
import type { PolicyKey, Workload } from '../state/types.ts';
import type {
  CompiledMatch,
  CompiledPolicies,
  CompiledPolicy,
  Policy,
  PolicyMatch,
  Refusal,
  ServiceAccountMatch,
  StringMatch,
} from './types.ts';

/**
 * Gathers the policies that apply to a local workload (those of its namespace, the global ones, and those it lists) and
 * prepares them for evaluation (spec §5.1). The order is by key, so that verdicts name the same policy everywhere.
 *
 * Unlike the incumbent, which skips what it does not know or understand, a listed policy that is unknown and a policy
 * with an entry that means nothing refuse every connection. A dry-run policy enforces nothing, broken or not.
 */
export function compilePolicies(mesh: MeshState, workload: Workload): CompiledPolicies {
  const keys = new Set([
    ...mesh.namespacePolicies(workload.namespace),
    ...mesh.globalPolicies(),
    ...workload.authorizationPolicies,
  ]);
  const refusals: Refusal[] = [];
  const compiled = {
    dryRunDeny: [] as CompiledPolicy[],
    deny: [] as CompiledPolicy[],
    dryRunAllow: [] as CompiledPolicy[],
    allow: [] as CompiledPolicy[],
  };
  for (const key of [...keys].sort()) {
    const policy = mesh.policy(key);
    if (policy === null) {
      refusals.push({ policy: key, reason: `unknown policy ${key} is listed for this workload` });
      continue;
    }
    try {
      compiled[groupOf(policy)].push(compilePolicy(key, policy));
    } catch (error) {
      if (!(error instanceof Unintelligible)) throw error;
      if (!policy.dryRun)
        refusals.push({ policy: key, reason: `policy ${key} cannot be understood: ${error.message}` });
    }
  }
  return { refusals, ...compiled };
}

/** Why a policy cannot be compiled, or null when it can. Sources use it to report a policy before it is in force. */
export function findPolicyFault(policy: Policy): string | null {
  try {
    compilePolicy('', policy);
    return null;
  } catch (error) {
    if (error instanceof Unintelligible) return error.message;
    throw error;
  }
}

class Unintelligible extends Error {}

function groupOf({ action, dryRun }: Policy): 'dryRunDeny' | 'deny' | 'dryRunAllow' | 'allow' {
  if (action === 'Deny') return dryRun ? 'dryRunDeny' : 'deny';
  return dryRun ? 'dryRunAllow' : 'allow';
}

function compilePolicy(key: PolicyKey, policy: Policy): CompiledPolicy {
  if (policy.unintelligible !== null) throw new Unintelligible(policy.unintelligible);
  const rules = policy.rules.map((clauses, rule) =>
    clauses.map((matches, clause) =>
      matches.map((match, index) => compileMatch(match, `rules[${rule}][${clause}][${index}]`)),
    ),
  );
  return {
    key,
    rules: rules.filter(canMatch).map((clauses) => clauses.map((matches) => matches.filter(asksSomething))),
  };
}

/** A clause of nothing but matches without values never matches, unlike a clause without matches (spec §5.1). */
function canMatch(clauses: readonly (readonly CompiledMatch[])[]): boolean {
  return clauses.every((matches) => matches.length === 0 || matches.some(asksSomething));
}

function asksSomething(match: CompiledMatch): boolean {
  return Object.values(match).some((values) => values !== null);
}

function compileMatch(match: PolicyMatch, at: string): CompiledMatch {
  const texts = (field: TextField) => compileList(match[field], `${at}.${field}`, checkString);
  const accounts = (field: AccountField) => compileList(match[field], `${at}.${field}`, checkAccount);
  const blocks = (field: BlockField) => compileList(match[field], `${at}.${field}`, toBlock);
  const ports = (field: PortField) => compileList(match[field], `${at}.${field}`, checkPort);
  return {
    namespaces: texts('namespaces'),
    notNamespaces: texts('notNamespaces'),
    serviceAccounts: accounts('serviceAccounts'),
    notServiceAccounts: accounts('notServiceAccounts'),
    principals: texts('principals'),
    notPrincipals: texts('notPrincipals'),
    sourceIps: blocks('sourceIps'),
    notSourceIps: blocks('notSourceIps'),
    destinationIps: blocks('destinationIps'),
    notDestinationIps: blocks('notDestinationIps'),
    destinationPorts: ports('destinationPorts'),
    notDestinationPorts: ports('notDestinationPorts'),
  };
}

type TextField = 'namespaces' | 'notNamespaces' | 'principals' | 'notPrincipals';
type AccountField = 'serviceAccounts' | 'notServiceAccounts';
type BlockField = 'sourceIps' | 'notSourceIps' | 'destinationIps' | 'notDestinationIps';
type PortField = 'destinationPorts' | 'notDestinationPorts';

/** null for an empty list; `toCompiled` gives null for a value that means nothing. */
function compileList<Given, Compiled>(
  values: readonly Given[],
  at: string,
  toCompiled: (value: Given) => Compiled | null,
): Compiled[] | null {
  if (values.length === 0) return null;
  return values.map((value, index) => {
    const compiled = toCompiled(value);
    if (compiled === null) throw new Unintelligible(`${at}[${index}] is ${JSON.stringify(value)}`);
    return compiled;
  });
}

function checkString(value: StringMatch): StringMatch | null {
  if ('Presence' in value) return value;
  const text = 'Exact' in value ? value.Exact : 'Prefix' in value ? value.Prefix : value.Suffix;
  return typeof text === 'string' ? value : null;
}

function checkAccount(value: ServiceAccountMatch): ServiceAccountMatch | null {
  return typeof value.namespace === 'string' && typeof value.serviceAccount === 'string' ? value : null;
}

function toBlock(value: string): Cidr | null {
  return parseCidr(value);
}

/** A port beyond 65535 is not folded into the range, as the incumbent does: it would match some other port. */
function checkPort(value: number): number | null {
  return Number.isInteger(value) && value >= 0 && value <= 65535 ? value : null;
}
