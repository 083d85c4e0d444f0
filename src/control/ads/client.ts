/**
 * One node proxy on one stream: takes its requests in, and sends what it is owed and what has changed, in the order that
 * never leaves a workload without the policies it lists (§7.6): policies that are new or altered, addresses, then removals
 * of policies and those that hold for fewer from now on, or may do so since the client was here before.
 */
import { afterReading } from '../../after-reading.ts';
import type { Logger } from '../../log/logger.ts';
import { inSlices } from '../../slices.ts';
import type { Caller } from '../authentication.ts';
import type { ServerStream } from '../grpc/service.ts';
import type { LineQuota } from '../line-quota.ts';
import type { MeshResources } from '../resources.ts';
import type { ChangeLog } from './change-log.ts';
import type { Composer, Prepared } from './composer.ts';
import type { AdsMetrics } from './metrics.ts';
import { type ClientNode, identifyNode } from './node.ts';
import { type ClientRequest, readRequest } from './request.ts';
import { type ClientStatus, clientStatus } from './status.ts';
import { servedType } from './types.ts';
import { type Owed, takeSome, Watch } from './watch.ts';

export interface ClientContext {
  readonly resources: MeshResources;
  readonly composer: Composer;
  readonly changes: ChangeLog;
  /** Changes before this place of the log may be sent by now. */
  released(): number;
  readonly policiesExpectedMs: number;
  readonly metrics: AdsMetrics;
  readonly log: Logger;
  /** Of lines about what clients say. */
  readonly complaints: LineQuota;
  /** The client has said who it is. */
  joined(client: AdsClient): void;
  /** The stream is to be ended for this. */
  refused(error: unknown): void;
}

export class AdsClient {
  readonly since = Date.now();
  readonly #stream: ServerStream;
  readonly #caller: Caller;
  readonly #context: ClientContext;
  readonly #watches = new Map<string, Watch>();
  readonly #inbox: Buffer[] = [];
  #isReading = false;
  #isOver = false;
  #node: ClientNode | null = null;
  /** Whether what is asked for of one kind waits for the client to ask for the other as well. */
  #isExpecting = false;
  #expecting: (() => void) | null = null;

  constructor(stream: ServerStream, caller: Caller, context: ClientContext) {
    this.#stream = stream;
    this.#caller = caller;
    this.#context = context;
  }

  get node(): ClientNode | null {
    return this.#node;
  }

  get watches(): Iterable<Watch> {
    return this.#watches.values();
  }

  receive(bytes: Buffer): void {
    if (this.#isOver) return;
    this.#inbox.push(bytes);
    if (this.#isReading) {
      // Whoever sends faster than is read here waits.
      this.#stream.pause();
      return;
    }
    this.#isReading = true;
    this.#readAll().catch((error: unknown) => {
      this.close();
      this.#context.refused(error);
    });
  }

  /** Sends what can be sent now. A defect ends this stream and no other. */
  advance(): void {
    if (this.#isOver) return;
    try {
      this.#advance();
    } catch (error) {
      this.close();
      this.#context.refused(error);
    }
  }

  #advance(): void {
    // What is looked up now must not be newer than what the log says.
    this.#context.resources.announce();
    let policies: Watch | null = null;
    const addresses: Watch[] = [];
    for (const watch of this.#watches.values()) {
      if (watch.type.kind === 'policies') policies = watch;
      else addresses.push(watch);
    }
    if (policies !== null) this.#advancePolicies(policies, addresses);
    for (const watch of addresses) this.#advanceAddresses(watch, policies);
    if (policies !== null) this.#advanceLast(policies, addresses);
  }

  /** The place of the log that this client still needs. */
  oldestPosition(): number {
    let oldest = this.#context.changes.head;
    for (const { position, lastPosition, type } of this.#watches.values()) {
      oldest = Math.min(oldest, position, type.kind === 'policies' ? lastPosition : position);
    }
    return oldest;
  }

  /** For how long bytes wait for the client, ms. */
  stalledMs(): number {
    return this.#stream.stalledMs();
  }

  /** For how long the oldest response has not been answered, ms. */
  unansweredMs(): number {
    let longest = 0;
    for (const { delivery } of this.#watches.values()) {
      if (delivery.kind === 'sent') longest = Math.max(longest, performance.now() - delivery.at);
    }
    // A slow connection is no silence.
    return Math.min(longest, this.#stream.idleMs());
  }

  /** Ends the stream; the client comes again. */
  end(message: string): void {
    this.close();
    this.#stream.end('UNAVAILABLE', message);
  }

  /** Ends the stream without a word, as nothing is taken. */
  abort(): void {
    this.close();
    this.#stream.abort();
  }

  /** The stream has ended. */
  close(): void {
    this.#isOver = true;
    this.#inbox.length = 0;
    this.#expecting?.();
  }

  status(): ClientStatus {
    return clientStatus(
      this.#node,
      this.#stream.peer.address,
      this.since,
      this.#watches.values(),
      this.#context.changes,
    );
  }

  async #readAll(): Promise<void> {
    for (let bytes = this.#inbox.shift(); bytes !== undefined; bytes = this.#inbox.shift()) {
      const request = await inSlices(readRequest(bytes));
      if (this.#isOver) return;
      this.#take(request);
    }
    this.#isReading = false;
    this.#stream.resume();
  }

  #take(request: ClientRequest): void {
    const { metrics, changes } = this.#context;
    if (this.#node === null) {
      this.#node = identifyNode(request.node, this.#caller);
      this.#context.joined(this);
    }
    const type = servedType(request.typeUrl);
    if (type === null) {
      this.#complain('a type that is not served was asked for', { type: request.typeUrl.slice(0, MAX_LOGGED) });
      return;
    }
    const watch = this.#watches.get(type.url);
    if (watch === undefined) {
      this.#watches.set(type.url, new Watch(type, request, changes.head));
      this.#expectOthers();
    } else {
      const reaction = watch.receive(request);
      if (reaction.kind === 'acknowledged' && reaction.delivery.changedAt !== null) {
        metrics.convergence.observe((performance.now() - reaction.delivery.changedAt) / 1000);
      } else if (reaction.kind === 'rejected') {
        metrics.rejects.add(1, type.metric);
        this.#complain('a node proxy rejected resources', { type: type.url, reason: reaction.reason });
      } else if (reaction.kind === 'stale') metrics.expiredNonces.add(1, type.metric);
    }
    this.advance();
  }

  #complain(text: string, about: Readonly<Record<string, string>>): void {
    const { log, complaints } = this.#context;
    const omitted = complaints.take();
    if (omitted === null) return;
    const node = this.#node?.id ?? '';
    log.warn('control::ads', text, { node, ...about, ...(omitted === 0 ? {} : { omitted }) });
  }

  /** A node proxy asks for both kinds in one moment, and the order of its requests must not be that of the responses. */
  #expectOthers(): void {
    if (this.#expecting !== null) return;
    this.#isExpecting = true;
    const over = () => {
      // A long request is read in slices.
      if (this.#isReading && !this.#isOver) {
        setImmediate(over);
        return;
      }
      this.#isExpecting = false;
      this.advance();
    };
    this.#expecting = afterReading(this.#context.policiesExpectedMs, over);
  }

  #advancePolicies(watch: Watch, addresses: readonly Watch[]): void {
    const { composer, changes } = this.#context;
    if (watch.delivery.kind !== 'none') return;
    if (watch.owed !== null) {
      this.#answerPolicies(watch, watch.owed);
      return;
    }
    // Addresses that can go now are not to wait for the policies of a change that has not been released.
    if (!this.#isDue(watch) && !addresses.some((each) => each.delivery.kind === 'none' && this.#isDue(each))) return;
    const from = watch.position;
    watch.position = changes.head;
    const prepared = changes.policiesSince(from)
      ? composer.policiesPut(watch.type, from, watch.lastPosition, watch.late)
      : null;
    if (prepared !== null) this.#send(watch, prepared, changes.firstAt(from));
  }

  /**
   * Sends all policies. But of those that the client holds, one that is gone by now, or that holds only for workloads that
   * list it, comes last: it may have held for more, and what the client holds is in force until the addresses have come.
   */
  #answerPolicies(watch: Watch, owed: Owed): void {
    const { composer, changes, resources } = this.#context;
    watch.owed = null;
    const unsent = changes.since(watch.lastPosition);
    const isLate = (name: string) => !resources.holdsUnlisted(name);
    watch.late = new Set([...watch.late, ...[...owed.versions.keys()].filter(isLate)]);
    const held =
      watch.sent === null ? watch.late : watch.late.union(composer.narrowedHeld(watch.position, watch.lastPosition));
    const isUnknown = (name: string) =>
      resources.policy(name) === null && !held.has(name) && !unsent.policies.has(name);
    const unknown = [...owed.names].filter(isUnknown);
    if (held.size === 0) {
      this.#sendEverything(watch, unknown);
      return;
    }
    watch.position = changes.head;
    const prepared = composer.everything(watch.type, unknown, held);
    if (prepared !== null) this.#send(watch, prepared, null);
  }

  #advanceAddresses(watch: Watch, policies: Watch | null): void {
    const { composer, changes } = this.#context;
    const { owed, wanted, type, position } = watch;
    if (watch.delivery.kind !== 'none' || !this.#isDue(watch) || !this.#hasPolicies(policies)) return;
    if (owed !== null) {
      watch.owed = null;
      if (wanted.kind === 'named') {
        const some = takeSome(owed);
        // The rest follows when the client has taken these.
        if (owed.names.size + owed.versions.size > 0) watch.owed = owed;
        this.#send(watch, composer.named(type, wanted, some, this.#node?.node ?? ''), null);
      } else if (owed.versions.size > 0 && !owed.again) {
        watch.position = changes.head;
        this.#send(watch, composer.difference(type, owed.versions), null);
      } else {
        this.#sendEverything(watch, this.#goneOf(watch, owed));
      }
      return;
    }
    watch.position = changes.head;
    const prepared =
      wanted.kind === 'named'
        ? composer.namedChanges(type, wanted, position, this.#node?.node ?? '')
        : composer.changes(type, position);
    if (prepared !== null) this.#send(watch, prepared, changes.firstAt(position));
  }

  #isDue({ owed, position }: Watch): boolean {
    return owed !== null || this.#context.released() > position;
  }

  /** Names that the client asked for or holds, and that there are not. */
  #goneOf({ type }: Watch, { names, versions }: Owed): string[] {
    const isGone = (name: string) => type.get(this.#context.resources, name) === null;
    return [...names, ...versions.keys()].filter(isGone);
  }

  /** What is the same for many clients is put together once. */
  #sendEverything(watch: Watch, gone: readonly string[]): void {
    const { composer, changes } = this.#context;
    if (gone.length > 0) {
      watch.position = changes.head;
      const prepared = composer.everything(watch.type, gone);
      if (prepared !== null) this.#send(watch, prepared, null);
    } else {
      // Who was sent something before is not sent what is older.
      const { prepared, position } = composer.snapshot(watch.type, watch.sent === null ? 0 : watch.position);
      watch.position = position;
      this.#send(watch, prepared, null);
    }
  }

  /** Whether every policy that an address may list is with the client already, or before it on the stream. */
  #hasPolicies(policies: Watch | null): boolean {
    if (policies === null) return !this.#isExpecting;
    if (policies.owed !== null || policies.delivery.kind === 'preparing') return false;
    return !this.#context.changes.policiesSince(policies.position);
  }

  #advanceLast(watch: Watch, addresses: readonly Watch[]): void {
    const { composer, changes } = this.#context;
    if (watch.delivery.kind !== 'none') return;
    if (addresses.length === 0 && this.#isExpecting) return;
    // No address that is still to come lists what goes before this place.
    let before = watch.position;
    for (const { owed, position, delivery } of addresses) {
      if (owed !== null || delivery.kind === 'preparing') return;
      before = Math.min(before, position);
    }
    if (before <= watch.lastPosition && watch.late.size === 0) return;
    const last = composer.policiesLast(watch.lastPosition, before, watch.late);
    const changedAt = changes.firstAt(watch.lastPosition);
    // Addresses of what has changed since then are still to come.
    watch.late = watch.late.intersection(changes.since(before).policies);
    watch.lastPosition = Math.max(watch.lastPosition, before);
    if (last.put.length > 0 || last.removed.length > 0) {
      this.#send(watch, composer.afterAddresses(watch.type, last), changedAt);
    }
  }

  #send(watch: Watch, prepared: Prepared, changedAt: number | null): void {
    const { metrics, log } = this.#context;
    watch.delivery = { kind: 'preparing' };
    let isLater = false;
    prepared((response) => {
      if (this.#isOver) return;
      const { nonce, version } = response;
      watch.delivery = { kind: 'sent', nonce, version, at: performance.now(), changedAt };
      watch.sent = { version, at: Date.now() };
      this.#stream.send(response.parts());
      metrics.pushes.add(1, watch.type.metric);
      metrics.size.observe(response.bytes, watch.type.metric);
      log.debug('control::ads', 'sent', {
        node: this.#node?.id ?? '',
        type: watch.type.url,
        resources: response.resources,
        removed: response.removed,
        bytes: response.bytes,
      });
      if (response.bytes > MAX_RESPONSE) {
        log.error('control::ads', 'a response is longer than node proxies accept', {
          type: watch.type.url,
          bytes: response.bytes,
          max: MAX_RESPONSE,
        });
      }
      // What had to wait for its place on the stream may go now.
      if (isLater) this.advance();
    });
    isLater = true;
  }
}

const MAX_LOGGED = 200;
/** §9.1 */
const MAX_RESPONSE = 200 * 1024 * 1024;
