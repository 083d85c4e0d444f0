/** AuthorizationPolicies and PeerAuthentications, and which workloads list them. */
import type { AuthorizationPolicy } from '../objects/authorization-policy.ts';
import type { Labels } from '../objects/metadata.ts';
import type { PeerAuthentication } from '../objects/peer-authentication.ts';
import type { Agenda } from './agenda.ts';
import type { AuthorizationMessage } from './authorization-messages.ts';
import { type ConvertedPolicy, convertAuthorizationPolicy, isSelective } from './authorization-policies.ts';
import { convertedKey, isBroad, PeerAuthentications } from './peer-authentications.ts';
import { SelectorIndex } from './selector-index.ts';
import type { MeshSettings } from './settings.ts';
import type { Sources } from './sources.ts';

export class PolicyRegistry {
  readonly #settings: MeshSettings;
  readonly #agenda: Agenda;
  readonly #sources: Sources;
  readonly #authorization = new Map<string, AuthorizationPolicy>();
  readonly #targeted = new Map<string, AuthorizationPolicy>();
  readonly #selectors = new SelectorIndex();
  /** Those of the root namespace once more, for workloads of the others. */
  readonly #rootSelectors = new SelectorIndex();
  readonly #peers: PeerAuthentications;
  /** By the name of the policy that it becomes. */
  readonly #converted = new Map<string, PeerAuthentication>();

  constructor(settings: MeshSettings, agenda: Agenda, sources: Sources) {
    this.#settings = settings;
    this.#agenda = agenda;
    this.#sources = sources;
    this.#peers = new PeerAuthentications(settings.rootNamespace);
  }

  setAuthorization(key: string, policy: AuthorizationPolicy | null): void {
    const before = this.#authorization.get(key) ?? null;
    if (policy === null) this.#authorization.delete(key);
    else this.#authorization.set(key, policy);
    this.#agenda.policies.add(key);
    if (policy !== null && policy.targets.length > 0) {
      this.#targeted.set(key, policy);
      this.#agenda.targets = true;
    } else this.#targeted.delete(key);
    const [selected, selects] = [this.#listedBy(before), this.#listedBy(policy)];
    if (JSON.stringify(selected) === JSON.stringify(selects)) return;
    const { namespace } = (policy ?? before)!;
    const isRoot = namespace === this.#settings.rootNamespace;
    for (const index of isRoot ? [this.#selectors, this.#rootSelectors] : [this.#selectors]) {
      if (selects === null) index.delete(key);
      else index.set(key, namespace, selects);
    }
    for (const selector of [selected, selects]) if (selector !== null) this.#touch(namespace, selector);
  }

  setPeer(key: string, policy: PeerAuthentication | null): void {
    const before = this.#peers.get(key);
    const namespaces = [...this.#sources.namespaces()];
    const strictBefore = namespaces.map((namespace) => this.#peers.isStrict(namespace));
    if (policy === null) this.#peers.delete(key);
    else this.#peers.set(key, policy);
    this.#agenda.policies.add(this.#peers.staticKey);
    for (const each of [before, policy]) {
      if (each === null) continue;
      const name = convertedKey(each);
      if (policy === null) this.#converted.delete(name);
      else this.#converted.set(name, policy);
      this.#agenda.policies.add(name);
      if (!isBroad(each)) this.#touchIn(each.namespace, each.selector!);
    }
    if (![before, policy].some((each) => each !== null && isBroad(each))) return;
    for (const name of this.#converted.keys()) this.#agenda.policies.add(name);
    for (const [index, namespace] of namespaces.entries())
      if (this.#peers.isStrict(namespace) !== strictBefore[index]) this.#touchIn(namespace, {});
  }

  /** Names of the policies that a workload lists, in their order. */
  keysOf(namespace: string, labels: Labels): readonly string[] {
    const { rootNamespace } = this.#settings;
    const own = this.#selectors.matching(namespace, labels);
    const ofRoot = namespace === rootNamespace ? [] : this.#rootSelectors.matching(rootNamespace, labels);
    const peers = this.#peers.keysOf(namespace, labels);
    return own.length + ofRoot.length === 0 ? peers : [...[...own, ...ofRoot].sort(), ...peers];
  }

  /** Those that are attached by reference. */
  targeted(): Iterable<AuthorizationPolicy> {
    return this.#targeted.values();
  }

  authorization(key: string): { readonly policy: AuthorizationPolicy; readonly converted: ConvertedPolicy } | null {
    const policy = this.#authorization.get(key);
    return policy === undefined ? null : { policy, converted: convertAuthorizationPolicy(policy, this.#settings) };
  }

  /** What the policy of this name says; null when there is none. */
  message(name: string): AuthorizationMessage | null {
    if (name === this.#peers.staticKey) return this.#peers.staticMessage();
    const peer = this.#converted.get(name);
    if (peer !== undefined) return this.#peers.messageOf(peer);
    return this.authorization(name)?.converted.message ?? null;
  }

  /** The selector by which workloads come to list the policy; null when none does. */
  #listedBy(policy: AuthorizationPolicy | null): Labels | null {
    if (policy === null || !isSelective(policy)) return null;
    return convertAuthorizationPolicy(policy, this.#settings).message === null ? null : policy.selector;
  }

  /** Of policies of the root namespace the workloads of all namespaces. */
  #touch(namespace: string, selector: Labels): void {
    const isRoot = namespace === this.#settings.rootNamespace;
    for (const each of isRoot ? this.#sources.namespaces() : [namespace]) this.#touchIn(each, selector);
  }

  #touchIn(namespace: string, selector: Labels): void {
    for (const source of this.#sources.matching(namespace, selector)) this.#agenda.sources.add(source);
  }
}
