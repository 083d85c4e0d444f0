/** PeerAuthentication → policies that deny peers without an identity, and which workloads list them (control-02 §2). */
import { byAge, type Labels } from '../objects/metadata.ts';
import type { MtlsMode, PeerAuthentication } from '../objects/peer-authentication.ts';
import type { AuthorizationMessage, Clause, Group, Match } from './authorization-messages.ts';
import { SelectorIndex } from './selector-index.ts';

const STATIC_STRICT = 'istio_converted_static_strict';
const CONVERTED = 'converted_peer_authentication_';

export class PeerAuthentications {
  readonly #rootNamespace: string;
  readonly #all = new Map<string, PeerAuthentication>();
  /** For all of their namespace, or of the mesh, by namespace. */
  readonly #broad = new Map<string, Map<string, PeerAuthentication>>();
  /** Of those the one that counts. */
  readonly #oldest = new Map<string, PeerAuthentication>();
  readonly #selectors = new SelectorIndex();

  constructor(rootNamespace: string) {
    this.#rootNamespace = rootNamespace;
  }

  set(key: string, policy: PeerAuthentication): void {
    this.delete(key);
    this.#all.set(key, policy);
    const { namespace } = policy;
    if (isBroad(policy)) {
      if (namespace === this.#rootNamespace && !isOfMesh(policy)) return;
      const known = this.#broad.get(namespace);
      if (known === undefined) this.#broad.set(namespace, new Map([[key, policy]]));
      else known.set(key, policy);
      this.#oldest.set(namespace, older(policy, this.#oldest.get(namespace) ?? null));
    } else if (namespace !== this.#rootNamespace) this.#selectors.set(key, namespace, policy.selector!);
  }

  delete(key: string): void {
    const before = this.#all.get(key);
    if (before === undefined) return;
    this.#all.delete(key);
    this.#selectors.delete(key);
    const { namespace } = before;
    const broad = this.#broad.get(namespace);
    if (broad?.delete(key) && broad.size === 0) this.#broad.delete(namespace);
    if (this.#oldest.get(namespace) !== before) return;
    const next = oldest(broad?.values() ?? []);
    if (next === null) this.#oldest.delete(namespace);
    else this.#oldest.set(namespace, next);
  }

  /** What a workload of the namespace has to have without a policy of its own. */
  isStrict(namespace: string): boolean {
    for (const level of [namespace, this.#rootNamespace]) {
      const mode = this.#oldest.get(level)?.mode ?? 'UNSET';
      if (mode !== 'UNSET') return mode === 'STRICT';
    }
    return false;
  }

  /** Keys of the policies that a workload lists, in their order. */
  keysOf(namespace: string, labels: Labels): readonly string[] {
    if (this.#all.size === 0) return NONE;
    const selecting = this.#selectors.matching(namespace, labels).map((key) => this.#all.get(key)!);
    const own = oldest(selecting);
    const rules = rulesOf(own, this.isStrict(namespace));
    switch (rules.kind) {
      case 'permissive':
        return NONE;
      case 'strict':
        return [this.staticKey];
      case 'by port':
        return [convertedKey(own!)];
    }
  }

  /** The policy of a PeerAuthentication itself; null when those that it selects need none of their own. */
  messageOf(policy: PeerAuthentication): AuthorizationMessage | null {
    if (isBroad(policy) || policy.namespace === this.#rootNamespace) return null;
    const rules = rulesOf(policy, this.isStrict(policy.namespace));
    if (rules.kind !== 'by port') return null;
    return denying(policy.namespace, CONVERTED + policy.name, rules.groups);
  }

  /** The policy for workloads whose ports are all strict; null while there is no PeerAuthentication at all. */
  staticMessage(): AuthorizationMessage | null {
    if (this.#all.size === 0) return null;
    return denying(this.#rootNamespace, STATIC_STRICT, [[[WITHOUT_IDENTITY]]]);
  }

  get(key: string): PeerAuthentication | null {
    return this.#all.get(key) ?? null;
  }

  get staticKey(): string {
    return `${this.#rootNamespace}/${STATIC_STRICT}`;
  }
}

/** The key of the policy that a PeerAuthentication becomes, if it becomes one. */
export function convertedKey({ namespace, name }: PeerAuthentication): string {
  return `${namespace}/${CONVERTED}${name}`;
}

/** Without a selector, or with one that asks for nothing: for all of its namespace. */
export function isBroad({ selector }: PeerAuthentication): boolean {
  return selector === null || Object.keys(selector).length === 0;
}

/**
 * Whether one of the root namespace that selects all says something about the mesh: with `selector: {}`, which istiod does
 * not heed there, only what is strict. What was written with a selector does not open the mesh.
 */
function isOfMesh({ selector, mode }: PeerAuthentication): boolean {
  return selector === null || mode === 'STRICT';
}

type Rules =
  | { readonly kind: 'permissive' | 'strict' }
  | { readonly kind: 'by port'; readonly groups: readonly Group[] };

/**
 * The mode is worked out once, for the key on workloads and for the policy behind it: istiod works it out twice, by rules
 * that differ, and lets workloads list policies that do not exist, which leaves them open.
 * @param own the policy that selects the workload
 * @param isStrictAbove what holds without it
 */
function rulesOf(own: PeerAuthentication | null, isStrictAbove: boolean): Rules {
  const isStrict = own === null || own.mode === 'UNSET' ? isStrictAbove : own.mode === 'STRICT';
  const ports = own?.portModes ?? [];
  if (isStrict) {
    const exempt = ports.filter(([, mode]) => isOpen(mode));
    if (exempt.length === 0) return { kind: 'strict' };
    const outside = exempt.map(([port]): Clause => [{ notDestinationPorts: [port] }]);
    return { kind: 'by port', groups: [[[WITHOUT_IDENTITY], ...outside]] };
  }
  const strict = ports.filter(([, mode]) => mode === 'STRICT');
  if (strict.length === 0) return { kind: 'permissive' };
  return { kind: 'by port', groups: strict.map(([port]) => [[{ ...WITHOUT_IDENTITY, destinationPorts: [port] }]]) };
}

function isOpen(mode: MtlsMode): boolean {
  return mode === 'PERMISSIVE' || mode === 'DISABLE';
}

const NONE: readonly string[] = [];
const WITHOUT_IDENTITY: Match = { notPrincipals: ['*'] };

function oldest(policies: Iterable<PeerAuthentication>): PeerAuthentication | null {
  let found: PeerAuthentication | null = null;
  for (const policy of policies) found = older(policy, found);
  return found;
}

function older(policy: PeerAuthentication, other: PeerAuthentication | null): PeerAuthentication {
  return other === null || byAge(policy, other) < 0 ? policy : other;
}

function denying(namespace: string, name: string, groups: readonly Group[]): AuthorizationMessage {
  return { namespace, name, scope: 'workload', action: 'DENY', groups, isDryRun: false };
}
