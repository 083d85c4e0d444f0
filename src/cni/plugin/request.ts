import { CulvertError } from '../../errors.ts';
import { fields, text } from '../../kube/object.ts';

/**
 * What the CNI plugin asks (native/cni-plugin): one packet on a SOCK_SEQPACKET socket, with the pod's network namespace
 * as its descriptor where the runtime gave one. Lines `NAME=value` of the CNI environment, an empty line, then the
 * network configuration as the runtime gave it.
 */
export interface PluginRequest {
  readonly command: 'ADD' | 'DEL' | 'CHECK' | 'STATUS' | 'GC';
  readonly containerId: string;
  readonly pod: SandboxPod | null;
  /** Addresses in `prevResult`, without their prefix lengths, as they were given. */
  readonly ips: readonly string[];
  /** Container ids of `cni.dev/valid-attachments`; null when the configuration has none. */
  readonly validContainers: ReadonlySet<string> | null;
}

/** CNI_ARGS as Kubernetes runtimes set it. */
export interface SandboxPod {
  readonly namespace: string;
  readonly name: string;
  /** '' when the runtime does not tell. */
  readonly uid: string;
}

/** The longest request, in bytes: what fits the default buffer of a socket, with room to spare. */
export const MAX_REQUEST_BYTES = 160 * 1024;

/** @throws CulvertError 'CNI_REQUEST_INVALID' */
export function readPluginRequest(packet: Uint8Array): PluginRequest {
  const whole = Buffer.from(packet.buffer, packet.byteOffset, packet.byteLength).toString('utf8');
  const end = whole.indexOf('\n\n');
  if (end < 0) throw invalid('it has no configuration');
  const environment = new Map<string, string>();
  for (const line of whole.slice(0, end).split('\n')) {
    const equals = line.indexOf('=');
    if (equals <= 0) throw invalid('a line of its head is no NAME=value');
    environment.set(line.slice(0, equals), line.slice(equals + 1));
  }
  const command = COMMANDS.find((known) => known === environment.get('CNI_COMMAND'));
  if (command === undefined) throw invalid(`CNI_COMMAND must be one of ${COMMANDS.join(', ')}`);
  let config: unknown;
  try {
    config = JSON.parse(whole.slice(end + 2));
  } catch (cause) {
    throw new CulvertError('CNI_REQUEST_INVALID', 'the network configuration is not JSON', { cause });
  }
  return {
    command,
    containerId: environment.get('CNI_CONTAINERID') ?? '',
    pod: sandboxPod(environment.get('CNI_ARGS') ?? ''),
    ips: addresses(fields(config).prevResult),
    validContainers: attachments(fields(config)['cni.dev/valid-attachments']),
  };
}

/** What the plugin is told: `ok`; `unavailable` (it decides by itself, as when nobody answers); or a CNI error. */
export type PluginAnswer =
  | { readonly kind: 'ok' }
  | { readonly kind: 'unavailable'; readonly reason: string }
  | { readonly kind: 'error'; readonly code: number; readonly message: string };

/** One packet: the kind, then the code of an error, then the text on the second line. */
export function writePluginAnswer(answer: PluginAnswer): Uint8Array {
  switch (answer.kind) {
    case 'ok':
      return Buffer.from('ok\n');
    case 'unavailable':
      return Buffer.from(`unavailable\n${answer.reason.slice(0, MAX_MESSAGE)}`);
    case 'error':
      return Buffer.from(`error ${answer.code}\n${answer.message.slice(0, MAX_MESSAGE)}`);
  }
}

/** Error codes of the CNI specification 1.1, and the plugin's own from 100 on. */
export const CNI_ERROR = { invalidEnvironment: 4, decoding: 6, tryAgain: 11, notEnrolled: 100 } as const;

const COMMANDS = ['ADD', 'DEL', 'CHECK', 'STATUS', 'GC'] as const;
const MAX_MESSAGE = 1500;

/** `KEY=value;…`; unknown keys are passed over, as other plugins of the chain have theirs. */
function sandboxPod(args: string): SandboxPod | null {
  const values = new Map(
    args.split(';').map((pair) => {
      const equals = pair.indexOf('=');
      return equals < 0
        ? ([pair.trim(), ''] as const)
        : ([pair.slice(0, equals).trim(), pair.slice(equals + 1)] as const);
    }),
  );
  const name = values.get('K8S_POD_NAME') ?? '';
  const namespace = values.get('K8S_POD_NAMESPACE') ?? '';
  // Both become parts of paths of the API.
  for (const part of [name, namespace]) {
    if (part !== '' && !/^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/.test(part)) {
      throw invalid(`CNI_ARGS has no name of Kubernetes: ${JSON.stringify(part.slice(0, 80))}`);
    }
  }
  return name === '' || namespace === '' ? null : { name, namespace, uid: values.get('K8S_POD_UID') ?? '' };
}

function addresses(prevResult: unknown): string[] {
  const { ips, ip4, ip6 } = fields(prevResult);
  // Up to version 0.2.0 a result had one address of each family.
  const entries = Array.isArray(ips) ? ips.map((entry) => fields(entry).address) : [fields(ip4).ip, fields(ip6).ip];
  return entries.map((entry) => text(entry).replace(/\/\d+$/, '')).filter((ip) => ip !== '');
}

function attachments(list: unknown): ReadonlySet<string> | null {
  if (!Array.isArray(list)) return null;
  return new Set(list.map((entry) => text(fields(entry).containerID)));
}

function invalid(what: string): CulvertError {
  return new CulvertError('CNI_REQUEST_INVALID', `the request of the CNI plugin cannot be read: ${what}`);
}
