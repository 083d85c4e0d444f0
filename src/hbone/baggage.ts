/** What a workload tells its peer about itself, for telemetry only. Unknown parts are empty. */
export interface Baggage {
  readonly clusterId: string;
  readonly namespace: string;
  /** deployment, cronjob, pod or job */
  readonly workloadType: string;
  readonly workloadName: string;
  readonly canonicalName: string;
  readonly canonicalRevision: string;
  readonly region: string;
  readonly zone: string;
}

/**
 * The `baggage` header of a workload (W3C Baggage): the parts it has, in the order its peers send them.
 *
 * Ordinary names stand as they are. Octets that would end the value or the header are percent-encoded, so that no name can
 * forge another part.
 */
export function buildBaggage(workload: Baggage): string {
  const parts: string[] = [];
  const add = (key: string, value: string) => {
    if (value !== '') parts.push(`${key}=${value.replace(/[^!#$&-+\--:<-[\]-~]+/g, percentEncode)}`);
  };
  add('k8s.cluster.name', workload.clusterId);
  add('k8s.namespace.name', workload.namespace);
  if (WORKLOAD_TYPES.has(workload.workloadType)) add(`k8s.${workload.workloadType}.name`, workload.workloadName);
  add('service.name', workload.canonicalName);
  add('service.version', workload.canonicalRevision);
  add('cloud.region', workload.region);
  add('cloud.availability_zone', workload.zone);
  return parts.join(',');
}

/**
 * Reads a peer's `baggage`. Never throws: what cannot be understood, is too long or holds control characters is unknown.
 * White space around keys and values is dropped, values are percent-decoded, properties (`;…`) ignored; of a part that
 * comes twice the later one counts.
 */
export function parseBaggage(header: string): Baggage {
  const baggage = { ...UNKNOWN_BAGGAGE };
  const members = header.slice(0, MAX_HEADER_LENGTH).split(',', MAX_MEMBERS);
  for (const member of members) {
    const equals = member.indexOf('=');
    if (equals < 0) continue;
    const key = member.slice(0, equals).trim();
    const semicolon = member.indexOf(';', equals);
    const value = decode(member.slice(equals + 1, semicolon < 0 ? undefined : semicolon).trim());
    const field = FIELDS.get(key);
    if (field !== undefined) {
      baggage[field] = value;
      continue;
    }
    const type = /^k8s\.([a-z]+)\.name$/.exec(key)?.[1];
    if (type === undefined || !WORKLOAD_TYPES.has(type)) continue;
    baggage.workloadName = value;
    baggage.workloadType = value === '' ? '' : type;
  }
  return baggage;
}

const WORKLOAD_TYPES: ReadonlySet<string> = new Set(['deployment', 'cronjob', 'pod', 'job']);

const FIELDS: ReadonlyMap<string, Exclude<keyof Baggage, 'workloadType' | 'workloadName'>> = new Map([
  ['k8s.cluster.name', 'clusterId'],
  ['k8s.namespace.name', 'namespace'],
  ['service.name', 'canonicalName'],
  ['service.version', 'canonicalRevision'],
  ['cloud.region', 'region'],
  ['cloud.availability_zone', 'zone'],
]);

/** Of a workload of which nothing is known. */
export const UNKNOWN_BAGGAGE: Baggage = {
  clusterId: '',
  namespace: '',
  workloadType: '',
  workloadName: '',
  canonicalName: '',
  canonicalRevision: '',
  region: '',
  zone: '',
};

/** What W3C Baggage §3.3.2 asks every platform to carry; more than that is of no use here. */
const MAX_HEADER_LENGTH = 8192;
const MAX_MEMBERS = 64;
/** No name in Kubernetes or DNS is longer. These values become metric labels. */
const MAX_VALUE_LENGTH = 253;

function percentEncode(text: string): string {
  return Array.from(Buffer.from(text, 'utf8'), (octet) => `%${octet.toString(16).toUpperCase().padStart(2, '0')}`).join(
    '',
  );
}

/** The decoded value, or '' when it is not fit for a label. Octets that are no UTF-8 become U+FFFD (W3C Baggage). */
function decode(value: string): string {
  const decoded = value.replace(/(?:%[0-9a-fA-F]{2})+/g, (encoded) =>
    Buffer.from(encoded.replaceAll('%', ''), 'hex').toString('utf8'),
  );
  return decoded.length > MAX_VALUE_LENGTH || !/^[!-~]*$/.test(value) || /\p{Cc}/u.test(decoded) ? '' : decoded;
}
