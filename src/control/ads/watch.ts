/** One type of resources on one stream: what is wanted of it, what was sent, and what the client said to that (§7.2). */
import { printable } from '../../control-plane/failure.ts';
import { refusal } from '../grpc/service.ts';
import type { ClientRequest } from './request.ts';
import type { ServedType } from './types.ts';

/** What a client wants of a type. */
export type Wanted =
  | { readonly kind: 'everything' }
  /** What was asked for, by whatever name; and the resources that were sent, which are kept up to date. */
  | { readonly kind: 'named'; readonly asked: Set<string>; readonly held: Set<string> };

/** What a request is to be answered with. */
export interface Owed {
  /** Names that were asked for just now. */
  readonly names: Set<string>;
  /** What the client reported to hold. */
  readonly versions: Map<string, string>;
  /** Whether what it holds in its present version is sent all the same. */
  readonly again: boolean;
}

/** Takes out of what is owed to who asks by name as much as is looked up in one turn. */
export function takeSome({ names, versions, again }: Owed): Owed {
  const some: Owed = { names: new Set(names.values().take(NAMES_PER_RESPONSE)), versions: new Map(), again };
  for (const entry of versions.entries().take(NAMES_PER_RESPONSE - some.names.size)) some.versions.set(...entry);
  for (const name of some.names) names.delete(name);
  for (const name of some.versions.keys()) versions.delete(name);
  return some;
}

/** At most one response of a type is on its way to a client. */
export type Delivery =
  | { readonly kind: 'none' }
  /** It is being put together. */
  | { readonly kind: 'preparing' }
  | {
      readonly kind: 'sent';
      readonly nonce: string;
      readonly version: string;
      /** By `performance.now()`, as `changedAt`. */
      readonly at: number;
      /** When the first of the changes in it was made; null in an answer to a request. */
      readonly changedAt: number | null;
    };

export type Reaction =
  | { readonly kind: 'asked' | 'nothing' | 'stale' }
  | { readonly kind: 'acknowledged'; readonly delivery: Extract<Delivery, { kind: 'sent' }> }
  | { readonly kind: 'rejected'; readonly reason: string };

export interface Rejection {
  /** Unix time, ms. */
  readonly at: number;
  readonly version: string;
  readonly reason: string;
}

export class Watch {
  readonly type: ServedType;
  wanted: Wanted;
  owed: Owed | null;
  delivery: Delivery = { kind: 'none' };
  /** Changes before this place of the log are with the client, or on their way. */
  position: number;
  /** Of policies: up to where those are that come last. */
  lastPosition: number;
  /** Of policies: names that the client reported and that come last, in their present form or as removed. */
  late: ReadonlySet<string> = new Set();
  sent: { readonly version: string; readonly at: number } | null = null;
  acknowledged: { readonly version: string; readonly at: number } | null = null;
  rejections = 0;
  lastRejection: Rejection | null = null;

  /** @param request the first one of the type on the stream, which is always answered */
  constructor(type: ServedType, request: ClientRequest, position: number) {
    const { subscribe, unsubscribe, initialVersions } = request;
    this.type = type;
    this.position = position;
    this.lastPosition = position;
    const names = new Set(subscribe);
    for (const name of unsubscribe) names.delete(name);
    // Policies are always sent to everybody (§7.5).
    const isWildcard = type.kind === 'policies' || subscribe.length === 0 || names.has(ALL);
    names.delete(ALL);
    this.wanted = isWildcard
      ? { kind: 'everything' }
      : { kind: 'named', asked: new Set([...names, ...initialVersions.keys()]), held: new Set() };
    this.owed = { names, versions: new Map(initialVersions), again: false };
    this.#checkSize();
  }

  /** Takes in a further request. @throws CulvertError RESOURCE_EXHAUSTED */
  receive(request: ClientRequest): Reaction {
    const { nonce, error } = request;
    const { delivery } = this;
    const isOfThis = delivery.kind === 'sent' && delivery.nonce === nonce;
    if (error !== null) {
      const reason = printable(error, null);
      this.rejections++;
      this.lastRejection = { at: Date.now(), version: isOfThis ? delivery.version : '', reason };
      // The client has taken what it can use of it.
      if (isOfThis) this.delivery = { kind: 'none' };
      return { kind: 'rejected', reason };
    }
    if (nonce !== '' && !isOfThis) return { kind: 'stale' };
    if (isOfThis) {
      this.delivery = { kind: 'none' };
      this.acknowledged = { version: delivery.version, at: Date.now() };
    }
    const isChanged = this.#change(request);
    if (isOfThis) return { kind: 'acknowledged', delivery };
    return { kind: isChanged ? 'asked' : 'nothing' };
  }

  /** Whether there is something to answer. A name that is asked for again is answered again. */
  #change({ subscribe, unsubscribe, initialVersions }: ClientRequest): boolean {
    if (subscribe.length === 0 && unsubscribe.length === 0 && initialVersions.size === 0) return false;
    const names = new Set([...subscribe, ...initialVersions.keys()]);
    for (const name of unsubscribe) names.delete(name);
    if (names.delete(ALL)) this.wanted = { kind: 'everything' };
    else if (this.wanted.kind === 'named') {
      for (const name of unsubscribe) {
        this.wanted.asked.delete(name);
        this.wanted.held.delete(name);
      }
      for (const name of names) this.wanted.asked.add(name);
    }
    if (this.owed === null) {
      this.owed = { names, versions: new Map(), again: true };
    } else {
      for (const name of this.owed.names) names.add(name);
      this.owed = { ...this.owed, names, again: true };
    }
    this.#checkSize();
    return true;
  }

  #checkSize(): void {
    if (this.wanted.kind === 'named' && this.wanted.asked.size > MAX_NAMES) {
      throw refusal(
        'RESOURCE_EXHAUSTED',
        `more than ${MAX_NAMES} names are asked for; subscribe to everything instead`,
      );
    }
  }
}

const NAMES_PER_RESPONSE = 10_000;
/** The name that stands for everything. */
const ALL = '*';
/** More are not asked for one by one; who knows most of a large mesh had better be told of all of it. */
const MAX_NAMES = 300_000;
