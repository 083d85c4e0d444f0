/** `istio.security.Authorization`: a policy, as the control plane sends it (spec §9.7, §5.1). */
import { cidrFromBytes, formatCidr } from '../netns/address.ts';
import {
  EMPTY_MATCH,
  type Policy,
  type PolicyClause,
  type PolicyMatch,
  type PolicyRule,
  type ServiceAccountMatch,
  type StringMatch,
} from '../policy/types.ts';
import {
  endOf,
  type Reader,
  readBytes,
  readFields,
  readFlag,
  readMessage,
  readNumber,
  readNumbers,
  readText,
} from './wire.ts';

/**
 * Reads an Authorization that starts where the reader is.
 *
 * What is not understood may be a condition, and leaving a condition out can turn a narrow policy into one that lets
 * everyone in. So such a policy comes back as one that says in `unintelligible` what was not understood.
 * @throws Error when not even the place where it applies is known
 */
export function readAuthorization(reader: Reader, end: number): Policy {
  let [name, namespace] = ['', ''];
  let scope: Policy['scope'] | undefined = 'Global';
  let action: Policy['action'] | undefined = 'Allow';
  let dryRun = false;
  let unintelligible: string | null = null;
  const rules: PolicyRule[] = [];
  readFields(reader, end, (field, wireType) => {
    switch (field) {
      case 1:
        name = readText(reader, wireType);
        break;
      case 2:
        namespace = readText(reader, wireType);
        break;
      case 3:
        scope = SCOPES[readNumber(reader, wireType)];
        break;
      case 4:
        action = ACTIONS[readNumber(reader, wireType)];
        break;
      case 5: {
        const after = endOf(reader, wireType);
        try {
          rules.push(readRule(reader, after));
        } catch (error) {
          unintelligible ??= `rule ${rules.length + 1}: ${(error as Error).message}`;
          reader.pos = after;
        }
        break;
      }
      case 6:
        dryRun = readFlag(reader, wireType);
        break;
      case 7:
        return false; // extensions do not change what the policy asks
      default:
        unintelligible ??= `unknown field ${field}`;
        return false;
    }
    return true;
  });
  if (scope === undefined) throw new Error('unknown scope');
  if (action === undefined) unintelligible ??= 'unknown action';
  return { name, namespace, scope, action: action ?? 'Deny', rules, dryRun, unintelligible };
}

function readRule(reader: Reader, end: number): PolicyRule {
  const clauses: PolicyClause[] = [];
  readFields(reader, end, (field, wireType) => {
    if (field !== 1) throw new Error(`unknown field ${field} of a rule`);
    const matches: PolicyMatch[] = [];
    readMessage(reader, wireType, (inner, innerType) => {
      if (inner !== 2) throw new Error(`unknown field ${inner} of a clause`);
      matches.push(readMatch(reader, endOf(reader, innerType)));
      return true;
    });
    clauses.push(matches);
    return true;
  });
  return clauses;
}

function readMatch(reader: Reader, end: number): PolicyMatch {
  const lists = new Map<keyof PolicyMatch, unknown[]>();
  readFields(reader, end, (field, wireType) => {
    const known = MATCH_FIELDS[field];
    if (known === undefined) throw new Error(`unknown condition (field ${field} of a match)`);
    const [name, read] = known;
    const list = lists.get(name) ?? [];
    lists.set(name, list);
    read(reader, wireType, list);
    return true;
  });
  return { ...EMPTY_MATCH, ...Object.fromEntries(lists) };
}

type ListReader = (reader: Reader, wireType: number, into: unknown[]) => void;

const texts: ListReader = (reader, wireType, into) => into.push(readStringMatch(reader, wireType));
const blocks: ListReader = (reader, wireType, into) => into.push(readBlock(reader, wireType));
const accounts: ListReader = (reader, wireType, into) => into.push(readAccount(reader, wireType));
const ports: ListReader = (reader, wireType, into) => {
  const list = into as number[];
  readNumbers(reader, wireType, list);
  const wrong = list.find((port) => port > 65535);
  if (wrong !== undefined) throw new Error(`port ${wrong}`);
};

/** By field number. */
const MATCH_FIELDS: readonly (readonly [keyof PolicyMatch, ListReader] | undefined)[] = [
  undefined,
  ['namespaces', texts],
  ['notNamespaces', texts],
  ['principals', texts],
  ['notPrincipals', texts],
  ['sourceIps', blocks],
  ['notSourceIps', blocks],
  ['destinationIps', blocks],
  ['notDestinationIps', blocks],
  ['destinationPorts', ports],
  ['notDestinationPorts', ports],
  ['serviceAccounts', accounts],
  ['notServiceAccounts', accounts],
];

function readStringMatch(reader: Reader, wireType: number): StringMatch {
  let match: StringMatch | null = null;
  readMessage(reader, wireType, (field, innerType) => {
    if (field === 1) match = { Exact: readText(reader, innerType) };
    else if (field === 2) match = { Prefix: readText(reader, innerType) };
    else if (field === 3) match = { Suffix: readText(reader, innerType) };
    else if (field === 4) {
      readBytes(reader, innerType);
      match = { Presence: [] };
    } else throw new Error(`unknown kind of text match (field ${field})`);
    return true;
  });
  if (match === null) throw new Error('a text match without a kind');
  return match;
}

function readBlock(reader: Reader, wireType: number): string {
  let bytes: Uint8Array = new Uint8Array();
  let length = 0;
  readMessage(reader, wireType, (field, innerType) => {
    if (field === 1) bytes = readBytes(reader, innerType);
    else if (field === 2) length = readNumber(reader, innerType);
    else throw new Error(`unknown field ${field} of an address`);
    return true;
  });
  const cidr = cidrFromBytes(bytes, length);
  if (cidr === null) throw new Error(`an address of ${bytes.length} bytes with a prefix of ${length} bits`);
  return formatCidr(cidr);
}

function readAccount(reader: Reader, wireType: number): ServiceAccountMatch {
  let [namespace, serviceAccount] = ['', ''];
  readMessage(reader, wireType, (field, innerType) => {
    if (field === 1) namespace = readText(reader, innerType);
    else if (field === 2) serviceAccount = readText(reader, innerType);
    else throw new Error(`unknown field ${field} of a service account`);
    return true;
  });
  return { namespace, serviceAccount };
}

// In the order of their numbers.
const SCOPES = ['Global', 'Namespace', 'WorkloadSelector'] as const;
const ACTIONS = ['Allow', 'Deny'] as const;
