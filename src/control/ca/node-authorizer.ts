import { setTimeout as delay } from 'node:timers/promises';
import { CulvertError } from '../../errors.ts';
import { parseSpiffeId, type SpiffeId } from '../../identity/spiffe.ts';
import type { Caller } from '../authentication.ts';
import { CallRefused } from '../call-refused.ts';

/** All pods whose phase is not Failed; those that have succeeded count (control-02 §4). */
export interface PodDirectory {
  pod(
    namespace: string,
    name: string,
  ): { readonly uid: string; readonly serviceAccount: string; readonly node: string } | null;
  /** Whether a pod of that service account is on the node. */
  runsOn(node: string, namespace: string, serviceAccount: string): boolean;
}

/** Decides who may have a certificate for whom. Rejects with CallRefused UNAUTHENTICATED. */
export interface NodeAuthorizer {
  permit(caller: Caller, identity: string): Promise<void>;
}

export interface NodeAuthorizerOptions {
  readonly pods: PodDirectory;
  /** Accounts that may ask in the name of others, as `namespace/service account` (CA_TRUSTED_NODE_ACCOUNTS). */
  readonly trustedAccounts: ReadonlySet<string>;
  readonly trustDomain: string;
  /**
   * How long a pod that is not known yet is waited for, in ms: a watch tells of a pod a little after it was scheduled. Then
   * the caller is refused and tries again, as with the incumbent, which refuses at once.
   */
  readonly patienceMs?: number;
}

/**
 * An agent may ask for the identities of the pods on its own node, and of no other (node-09 §9.3). Stricter than the
 * incumbent: the trust domain has to be that of this mesh, and names are read strictly.
 */
export function createNodeAuthorizer(options: NodeAuthorizerOptions): NodeAuthorizer {
  const { pods, trustedAccounts, trustDomain, patienceMs = 2000 } = options;
  let waiting = 0;

  return {
    async permit(caller, identity) {
      const id = readIdentity(identity);
      if (id.trustDomain !== trustDomain) throw refused(`the trust domain of this mesh is ${trustDomain}`);
      const account = `${caller.namespace}/${caller.serviceAccount}`;
      if (!trustedAccounts.has(account)) throw refused(`${account} is not in CA_TRUSTED_NODE_ACCOUNTS`);
      const obstacle = await lasting(() => obstacleTo(caller, id));
      if (obstacle !== null) throw refused(obstacle);
    },
  };

  /** What still stands in the way after the time that it may take to learn of a pod; null for nothing. */
  async function lasting(look: () => string | null): Promise<string | null> {
    let obstacle = look();
    if (obstacle === null || waiting >= MAX_WAITING) return obstacle;
    waiting++;
    try {
      const end = performance.now() + patienceMs;
      while (obstacle !== null && performance.now() < end) {
        await delay(LOOK_EVERY_MS);
        obstacle = look();
      }
    } finally {
      waiting--;
    }
    return obstacle;
  }

  function obstacleTo(caller: Caller, { namespace, serviceAccount }: SpiffeId): string | null {
    const node = caller.node ?? nodeOf(caller);
    if (typeof node !== 'string') return node.obstacle;
    return pods.runsOn(node, namespace, serviceAccount)
      ? null
      : `no pod of ${namespace}/${serviceAccount} is known on node ${node}`;
  }

  function nodeOf({ namespace, serviceAccount, pod: bound }: Caller): string | { readonly obstacle: string } {
    if (bound === null) return { obstacle: 'the token is not bound to a pod' };
    const pod = pods.pod(namespace, bound.name);
    if (pod === null) return { obstacle: `the pod of the token, ${namespace}/${bound.name}, is not known` };
    if (pod.uid !== bound.uid) return { obstacle: `the token is of an earlier pod ${namespace}/${bound.name}` };
    if (pod.serviceAccount !== serviceAccount) {
      return { obstacle: `pod ${namespace}/${bound.name} is of service account ${pod.serviceAccount}` };
    }
    return pod.node === '' ? { obstacle: `pod ${namespace}/${bound.name} is on no node` } : pod.node;
  }
}

function readIdentity(text: string): SpiffeId {
  try {
    return parseSpiffeId(text);
  } catch (error) {
    if (error instanceof CulvertError) throw refused(error.message);
    throw error;
  }
}

const LOOK_EVERY_MS = 100;
/** A caller that asks for what it may not have must not hold up the others. */
const MAX_WAITING = 256;

/** The text is the incumbent's, and does not tell which pods there are. */
function refused(reason: string): CallRefused {
  return new CallRefused('UNAUTHENTICATED', 'request impersonation authentication failure', reason);
}
