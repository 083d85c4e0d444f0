/**
 * Brings responses of the control plane into the mesh state, while they arrive and in steps: the thread that does it has
 * pods to serve meanwhile.
 */

import protobuf from 'protobufjs/minimal.js';
import { afterReading } from '../after-reading.ts';
import { messageOf } from '../errors.ts';
import type { Policy } from '../policy/types.ts';
import type { LocalLayer } from '../state/local-layer.ts';
import type { MeshStore, WorkloadUpdate } from '../state/mesh-state.ts';
import { type ServiceDefinition, serviceKey } from '../state/types.ts';
import { readAddress } from './address.ts';
import { readAuthorization } from './authorization.ts';
import { ADDRESS, AUTHORIZATION, type EncodedResource, RESPONSE, readResource, type TypeUrl } from './delta.ts';
import { FieldSplitter } from './field-splitter.ts';
import { KnownResources, type Push } from './known.ts';
import type { Reader } from './wire.ts';
import { forgetAlike } from './workload.ts';

/** How a response is to be answered, once all of it is in the mesh state. */
export interface TakenIn {
  readonly typeUrl: string;
  readonly nonce: string;
  /** What was not accepted, name and reason; the first of it when that is a lot. */
  readonly rejected: ReadonlyMap<string, string>;
  /** Names, further names and removed names; null when nobody asked for any. */
  readonly named: ReadonlySet<string> | null;
  readonly push: Push;
}

export interface IntakeOptions {
  readonly store: MeshStore;
  /** Workloads of this node are judged by policies here. */
  readonly localNode: string;
  readonly now: () => number;
  /** ms since any time, for what waits; `performance.now` by default. */
  readonly monotonic?: () => number;
  /** Collect the names in a response: somebody may wait for one. */
  readonly collectNames: boolean;
  /** What lies under the control plane's resources and comes back when they go. */
  readonly underlay: Pick<LocalLayer, 'workload' | 'service' | 'policy'>;
}

export class Intake {
  readonly addresses: KnownResources;
  readonly authorizations = new KnownResources(AUTHORIZATION);
  readonly #store: MeshStore;
  readonly #localNode: string;
  readonly #now: () => number;
  readonly #monotonic: () => number;
  readonly #collectNames: boolean;
  readonly #underlay: IntakeOptions['underlay'];
  #batch = emptyBatch();
  /** Workloads of this node that wait for a policy which they list since now, at most until that time. */
  readonly #held = new Map<string, { readonly update: WorkloadUpdate; readonly until: number }>();
  #heldTimer: (() => void) | null = null;
  #isClosed = false;
  readonly #synced = new Set<TypeUrl>();

  constructor({ store, localNode, now, monotonic, collectNames, underlay }: IntakeOptions) {
    this.addresses = new KnownResources(ADDRESS, store.versions);
    this.#store = store;
    this.#localNode = localNode;
    this.#now = now;
    this.#monotonic = monotonic ?? (() => performance.now());
    this.#collectNames = collectNames;
    this.#underlay = underlay;
  }

  /** Null for a type that was not asked for. */
  known(typeUrl: string): KnownResources | null {
    return typeUrl === ADDRESS ? this.addresses : typeUrl === AUTHORIZATION ? this.authorizations : null;
  }

  /** Whether every type was delivered once. */
  isSynced(types: readonly TypeUrl[]): boolean {
    return types.every((type) => this.#synced.has(type));
  }

  /**
   * Starts to take in one response. Each of its steps is short, and what was read shows in the mesh state after `flush` at
   * the latest.
   */
  begin(): ResponseIntake {
    return new ResponseIntake(this, this.#now, this.#collectNames);
  }

  /** Brings what was read so far into the mesh state. */
  flush(): void {
    if (this.#batch.size === 0) return;
    const batch = this.#batch;
    this.#batch = emptyBatch();
    this.#store.apply(batch);
  }

  /** @throws Error why the resource cannot be used */
  takeResource(resource: EncodedResource, reader: Reader): void {
    reader.pos = resource.start;
    const known = this.known(resource.typeUrl);
    if (known === null) throw new Error(`unknown type ${JSON.stringify(resource.typeUrl)}`);
    if (resource.name === '') throw new Error('no name');
    if (known === this.addresses) this.#takeAddress(resource, reader);
    else this.#takePolicy(resource, reader);
    known.accept(resource.name, resource.version);
    if (this.#batch.size >= MAX_BATCH) this.flush();
  }

  #takeAddress({ name, end }: EncodedResource, reader: Reader): void {
    const address = readAddress(reader, end);
    const key = address.kind === 'workload' ? address.update.workload.uid : serviceKey(address.definition);
    if (key !== name) throw new Error(`the name does not fit what it names: ${JSON.stringify(key)}`);
    if (address.kind === 'service') {
      this.#batch.add('services', address.definition);
      return;
    }
    // Whoever changes while it waits does not wait longer for it.
    const until = this.#held.size === 0 ? undefined : this.#held.get(key)?.until;
    if (until !== undefined) this.#held.delete(key);
    if (this.#mustWait(address.update)) this.#hold(address.update, until ?? this.#monotonic() + POLICY_PATIENCE_MS);
    else this.#batch.add('workloads', address.update);
  }

  #takePolicy({ name, end }: EncodedResource, reader: Reader): void {
    const policy = readAuthorization(reader, end);
    const before = this.#store.policy(name);
    // What a policy says that is not understood may be a condition. Without an older one to keep, it denies.
    if (policy.unintelligible === null || before === null || before.unintelligible !== null) {
      this.#batch.add('policies', [name, policy]);
      // Without a version: it is not what the control plane believes to be here.
      this.authorizations.accept(name, '');
    }
    if (policy.unintelligible !== null) throw new Unintelligible(policy.unintelligible);
  }

  remove(known: KnownResources, name: string): void {
    known.remove(name);
    if (known === this.authorizations) this.#removePolicy(name);
    else this.#removeAddress(name);
    if (this.#batch.size >= MAX_BATCH) this.flush();
  }

  #removePolicy(key: string): void {
    const below = this.#underlay.policy(key);
    if (below === null) this.#batch.add('removedPolicies', key);
    else this.#batch.add('policies', [key, below]);
  }

  /** A name is a uid or else a service's; the store passes over what it does not have. */
  #removeAddress(name: string): void {
    this.#held.delete(name);
    const workload = this.#underlay.workload(name);
    if (workload === null) this.#batch.add('removedWorkloads', name);
    else this.#batch.add('workloads', workload);
    const service = this.#underlay.service(name);
    if (service === null) this.#batch.add('removedServices', name);
    else this.#batch.add('services', service);
  }

  /** All of a response was read. Its last steps are those of workloads that waited for a policy in it. */
  *delivered(known: KnownResources, push: Push, unreadable: number): Generator<void, void> {
    known.lastPush = push;
    // A workload that cannot be read must not keep a whole node down; a policy that cannot be read might deny something.
    if (known === this.addresses || unreadable === 0) this.#synced.add(known.typeUrl);
    if (known !== this.authorizations) return;
    for (const [uid, { update }] of this.#held) {
      if (!this.#listsUnknown(update)) this.#release(uid, update);
      yield;
    }
    this.flush();
  }

  close(): void {
    this.#isClosed = true;
    this.#heldTimer?.();
    this.#held.clear();
  }

  /**
   * The control plane sends workloads before the policies that they newly list (control-01 §7.6), and a policy that is not
   * known denies. So that attaching a policy cuts nobody off, a workload waits for it, a moment at most.
   */
  #mustWait(update: WorkloadUpdate): boolean {
    const { uid, node } = update.workload;
    if ((this.#localNode !== '' && node !== this.#localNode) || !this.#synced.has(AUTHORIZATION)) return false;
    const { authorizationPolicies } = update.workload;
    if (authorizationPolicies.length === 0) return false;
    const before = this.#store.workload(uid);
    if (before === null) return false;
    return authorizationPolicies.some(
      (key) => this.#store.policy(key) === null && !before.authorizationPolicies.includes(key),
    );
  }

  #hold(update: WorkloadUpdate, until: number): void {
    this.#held.set(update.workload.uid, { update, until });
    this.#heldTimer ??= this.#releaseIn(until - this.#monotonic());
  }

  /** What is read in one turn is taken in in the next. */
  #releaseIn(ms: number): () => void {
    return afterReading(ms, () => setImmediate(() => this.#releaseDue()));
  }

  /** Lets those go whose time is over, of many some at a time. */
  #releaseDue(): void {
    if (this.#isClosed) return;
    const now = this.#monotonic();
    let next = Number.POSITIVE_INFINITY;
    let released = 0;
    for (const [uid, { update, until }] of this.#held) {
      if (until <= now && released++ < MAX_BATCH) this.#release(uid, update);
      else next = Math.min(next, until);
    }
    this.flush();
    const isOver = next === Number.POSITIVE_INFINITY;
    this.#heldTimer = isOver ? null : this.#releaseIn(Math.max(0, next - now));
  }

  #release(uid: string, update: WorkloadUpdate): void {
    this.#held.delete(uid);
    this.#batch.add('workloads', update);
    if (this.#batch.size >= MAX_BATCH) this.flush();
  }

  #listsUnknown({ workload }: WorkloadUpdate): boolean {
    return workload.authorizationPolicies.some((key) => this.#store.policy(key) === null);
  }
}

/** One response on its way into the mesh state. */
export class ResponseIntake {
  readonly #intake: Intake;
  readonly #now: () => number;
  readonly #fields = new FieldSplitter();
  readonly #rejected = new Map<string, string>();
  readonly #removed: string[] = [];
  readonly #named: Set<string> | null;
  #rejections = 0;
  #unreadable = 0;
  #typeUrl = '';
  #nonce = '';
  #resources = 0;
  #bytes = 0;

  constructor(intake: Intake, now: () => number, collectNames: boolean) {
    this.#intake = intake;
    this.#now = now;
    this.#named = collectNames ? new Set() : null;
  }

  /** Takes in the next piece, a resource or some small ones with each step. @throws Error when this is no DeltaDiscoveryResponse */
  *push(piece: Buffer): Generator<void, undefined> {
    let reader: Reader | null = null;
    let inStep = 0;
    const fields = this.#fields;
    fields.add(piece);
    while (fields.next()) {
      const { field, bytes, start, end } = fields;
      if (field === RESPONSE.resource) {
        // Fields that lie across two pieces are in bytes of their own.
        if (reader === null || reader.buf !== bytes) reader = protobuf.Reader.create(bytes);
        reader.pos = start;
        this.#take(reader, end);
        inStep += end - start;
        if (inStep < STEP) continue;
        inStep = 0;
        yield;
      } else if (field === RESPONSE.typeUrl) this.#typeUrl = bytes.toString('utf8', start, end);
      else if (field === RESPONSE.nonce) this.#nonce = bytes.toString('utf8', start, end);
      else if (field === RESPONSE.removed) this.#removed.push(bytes.toString('utf8', start, end));
    }
  }

  /** After the last piece. All of it is in the mesh state when the generator is done. */
  *end(): Generator<void, TakenIn> {
    this.#fields.finish();
    forgetAlike();
    const known = this.#intake.known(this.#typeUrl);
    if (known === null) {
      this.#reject(this.#typeUrl, 'this type was not asked for');
    } else {
      for (const names of [this.#removed, known.takeMissing()]) {
        for (const name of names) {
          this.#named?.add(name);
          this.#intake.remove(known, name);
          yield;
        }
      }
    }
    this.#intake.flush();
    const push: Push = {
      at: this.#now(),
      resources: this.#resources,
      removed: this.#removed.length,
      rejected: this.#rejections,
      bytes: this.#bytes,
    };
    if (known !== null) yield* this.#intake.delivered(known, push, this.#unreadable);
    return { typeUrl: this.#typeUrl, nonce: this.#nonce, rejected: this.#rejected, named: this.#named, push };
  }

  #take(reader: Reader, end: number): void {
    let resource: EncodedResource;
    this.#resources++;
    try {
      resource = readResource(reader, end);
    } catch (error) {
      this.#unreadable++;
      this.#reject(`resource ${this.#resources}`, messageOf(error));
      return;
    }
    this.#bytes += resource.end - resource.start;
    if (this.#named !== null) for (const name of [resource.name, ...resource.aliases]) this.#named.add(name);
    try {
      this.#intake.takeResource(resource, reader);
    } catch (error) {
      if (!(error instanceof Unintelligible)) this.#unreadable++;
      this.#reject(resource.name, messageOf(error));
      this.#intake.known(resource.typeUrl)?.reject(resource.name, messageOf(error));
    }
  }

  #reject(name: string, reason: string): void {
    this.#rejections++;
    if (this.#rejected.size < MAX_REJECTED) this.#rejected.set(name, reason);
  }
}

/** A policy that is held as one that denies. */
class Unintelligible extends Error {}

interface Batch {
  readonly size: number;
  readonly workloads: WorkloadUpdate[];
  readonly services: ServiceDefinition[];
  readonly policies: (readonly [string, Policy])[];
  readonly removedWorkloads: string[];
  readonly removedServices: string[];
  readonly removedPolicies: string[];
  add<Part extends BatchPart>(part: Part, item: Batch[Part][number]): void;
}

type BatchPart = Exclude<keyof Batch, 'size' | 'add'>;

function emptyBatch(): Batch {
  const parts = {
    workloads: [],
    services: [],
    policies: [],
    removedWorkloads: [],
    removedServices: [],
    removedPolicies: [],
  };
  let size = 0;
  return {
    ...parts,
    get size() {
      return size;
    },
    add(part, item) {
      (parts[part] as unknown[]).push(item);
      size++;
    },
  };
}

/**
 * Resources that are applied at once: with more, what was read of them outlives the young generation, and the heap grows to
 * twice the size while a large mesh is taken in (`npm run bench -- scale`).
 */
const MAX_BATCH = 64;
/** Bytes of resources that are worth a look at the clock. */
const STEP = 4096;
/** How many rejected resources of one response are named to the control plane. */
const MAX_REJECTED = 100;
/** A push of workloads and the push of their policies follow each other at once. */
const POLICY_PATIENCE_MS = 1000;
