import type { Accepted } from '../../native/channel.ts';
import type { Deadline } from '../deadlines.ts';
import { CapturedConnection } from '../filters/captured-connection.ts';
import type { FilterChain } from '../filters/chain.ts';
import type { ConnectionDump } from '../filters/connection.ts';
import { dial } from '../filters/dial.ts';
import type { Plane, Pod } from '../filters/plane.ts';
import { close, type Refusal } from '../filters/verdict.ts';
import { buildBaggage, parseBaggage } from '../hbone/baggage.ts';
import { connectRequestHeaders, fieldValue } from '../hbone/connect-headers.ts';
import { buildForwarded } from '../hbone/forwarded.ts';
import type { HeaderField } from '../hbone/hpack.ts';
import type { Http2Stream } from '../hbone/stream.ts';
import { createTraceparentSource } from '../hbone/traceparent.ts';
import { ATTEMPTS_RETRIED } from '../metrics/families.ts';
import { formatSocketAddress } from '../netns/address.ts';
import { PlainRelay } from '../relay/plain-relay.ts';
import { TunnelRelay } from '../relay/tunnel-relay.ts';
import { type EndpointSet, endpointsOf } from '../routing/endpoint-set.ts';
import type { InnerTunnel, OutboundPlan, PlannedEndpoint } from '../routing/plan.ts';
import { ConnectAttempt, type Fault, faultOf, UNANSWERED, type UnderWay } from './connect-attempt.ts';
import { contextOf, sharedContext } from './context.ts';
import { innerTunnels, pooledTunnels } from './tunnels.ts';

/**
 * A connection that an application of the pod makes, captured on 15001 (spec §3). An endpoint that cannot be reached is
 * replaced by another one as long as the time for connecting lasts: nothing of the application has been sent yet.
 */
export class OutboundConnection extends CapturedConnection {
  readonly isRedirected: boolean;
  plan: OutboundPlan | null = null;
  endpoint: PlannedEndpoint | null = null;
  /** Whether the endpoint's connections are counted, as they are where there is a choice. */
  #isJoined = false;
  /** What is on the way to the other side. */
  #underWay: { cancel(): void } | null = null;
  /** Ends an attempt that takes too long while others are left. */
  #patience: Deadline | null = null;
  /** Health keys of the endpoints that could not be reached; null before the first. */
  #tried: Set<string> | null = null;
  #attemptedAt = 0;
  #connectBy = 0;

  constructor(plane: Plane, pod: Pod, accepted: Accepted, chain: FilterChain<OutboundConnection>) {
    super('outbound', plane, pod, accepted, chain);
    this.isRedirected = accepted.original;
  }

  /** Takes an endpoint of the plan. */
  use(plan: ForwardPlan, endpoint: PlannedEndpoint): void {
    this.#leave();
    this.endpoint = endpoint;
    this.#isJoined = endpointsOf(plan).size > 1;
    if (this.#isJoined) this.pod.balancer.joined(endpoint);
  }

  pass(): void {
    const { plan, endpoint, plane } = this;
    if (plan?.kind !== 'forward' || endpoint === null) return;
    this.#connectBy = plane.now() + plane.settings.connectTimeout;
    this.#connect(plan, endpoint);
  }

  override finish(refusal: Refusal | null): void {
    this.#settle();
    if (!this.isOver && this.context === null && this.plan?.kind === 'forward' && this.endpoint?.inner) {
      // The far end has not told who it is.
      this.know(contextOf(this.plan, this.endpoint));
    }
    super.finish(refusal);
    this.#leave();
  }

  describe(): ConnectionDump {
    const endpoint = this.endpoint;
    return {
      direction: 'outbound',
      src: formatSocketAddress({ ip: this.peerIp, port: this.peerPort }),
      originalDst: formatSocketAddress({ ip: this.destinationIp, port: this.destinationPort }),
      actualDst: endpoint === null ? '' : formatSocketAddress(endpoint.address),
      protocol: endpoint?.protocol !== 'hbone' ? 'TCP' : endpoint.inner === null ? 'HBONE' : 'DOUBLEHBONE',
    };
  }

  protected release(): void {
    const underWay = this.#underWay;
    this.#settle();
    underWay?.cancel();
  }

  #connect(plan: ForwardPlan, endpoint: PlannedEndpoint): void {
    this.#attemptedAt = this.plane.now();
    if (endpoint.protocol === 'tcp') this.#connectPlain(plan, endpoint);
    else if (endpoint.inner === null) this.#connectThroughTunnel(plan, endpoint);
    else this.#connectThroughGateway(plan, endpoint, endpoint.inner);
  }

  /** The endpoint was reached. */
  #reached(endpoint: PlannedEndpoint): void {
    this.#settle();
    this.pod.balancer.succeeded(endpoint);
  }

  /** The endpoint was not reached: on to another one, if there is time for it, or the end. */
  #missed(
    plan: ForwardPlan,
    endpoint: PlannedEndpoint,
    refusal: Refusal,
    fault: Fault,
    timeLeft = this.#timeLeft(),
  ): void {
    this.#settle();
    const { plane, pod } = this;
    const endpoints = endpointsOf(plan);
    if (fault === 'endpoint') pod.balancer.failed(serviceOf(plan, this), endpoints, endpoint, this.#attemptedAt);
    const next = fault === 'none' || pod.stopped ? null : this.#another(endpoints, endpoint, timeLeft);
    if (next === null) {
      this.refuse(refusal);
      return;
    }
    plane.metrics.add(plane.metrics.slot(ATTEMPTS_RETRIED, refusal.reason), 1);
    this.use(plan, next);
    // Who is beyond a network gateway tells the far end's answer.
    if (next.inner === null) this.know(sharedContext(plan, next));
    this.#connect(plan, next);
  }

  /** For connecting, in ms; 0 or less when it is over. */
  #timeLeft(): number {
    return this.#connectBy - this.plane.now();
  }

  #another(endpoints: EndpointSet, failed: PlannedEndpoint, timeLeft: number): PlannedEndpoint | null {
    this.#tried ??= new Set();
    this.#tried.add(failed.healthKey);
    const attemptsLeft = MAX_ATTEMPTS - this.#tried.size;
    if (attemptsLeft <= 0 || timeLeft <= 0) return null;
    // Where many fail at once all near ones may be gone: the last attempts are for farther ones.
    const { attemptTimeout, connectTimeout } = this.plane.settings;
    const fartherTime = Math.min(FARTHER_ATTEMPTS * attemptTimeout, connectTimeout / 2);
    const isLate = attemptsLeft <= FARTHER_ATTEMPTS || timeLeft <= fartherTime;
    const from = isLate ? Math.min(endpoints.tierOf(failed) + 1, endpoints.tiers - 1) : 0;
    return this.pod.balancer.pick(endpoints, this.#tried, from);
  }

  /** While there are other endpoints, one that does not answer is not waited for to the end. */
  #limitPatience(plan: ForwardPlan, endpoint: PlannedEndpoint, attempt: UnderWay): void {
    const tried = (this.#tried?.size ?? 0) + 1;
    if (this.#underWay !== null && tried < Math.min(endpointsOf(plan).size, MAX_ATTEMPTS)) {
      this.#setPatience(plan, endpoint, attempt);
    }
  }

  #setPatience(plan: ForwardPlan, endpoint: PlannedEndpoint, attempt: UnderWay): void {
    this.#patience = this.plane.deadlines.attempt.set((now) => {
      if (this.#underWay === null) return;
      const { attemptTimeout } = this.plane.settings;
      if (attempt.isSilentAt(now)) {
        attempt.lapse();
        const { ip, port } = endpoint.address;
        const message = `no connection to ${formatSocketAddress({ ip, port })} within ${attemptTimeout} ms`;
        this.#missed(plan, endpoint, close('connect-failed', message, 503, 'NETWORK_POLICY'), 'endpoint');
        return;
      }
      // One that is heard of is left in time to ask another; when it is too late for that, its answer is all there is to hope for.
      const timeLeft = this.#timeLeft();
      if (timeLeft > attemptTimeout || timeLeft <= 0) {
        this.#limitPatience(plan, endpoint, attempt);
        return;
      }
      // Its tunnel serves others.
      attempt.cancel();
      this.#missed(plan, endpoint, UNANSWERED, faultAt(endpoint, 'beyond'), timeLeft);
    });
  }

  /** Nothing is on the way any more. */
  #settle(): void {
    this.#underWay = null;
    this.#patience?.clear();
    this.#patience = null;
  }

  #leave(): void {
    if (this.#isJoined) this.pod.balancer.left(this.endpoint!);
    this.#isJoined = false;
  }

  #connectPlain(plan: ForwardPlan, endpoint: PlannedEndpoint): void {
    let failedAtOnce = true;
    const dialling = dial(this.plane, this.pod, endpoint.address, null, {
      connected: (channel) => {
        this.#reached(endpoint);
        this.relay = new PlainRelay(this.plane.loop, this.channel, channel, this);
        this.relay.start();
      },
      failed: (error) => {
        const miss = () =>
          this.#missed(plan, endpoint, close('connect-failed', `io error: ${error.message}`), faultOf(error));
        // Not within dial, whose result would be taken for what comes after.
        if (failedAtOnce) queueMicrotask(() => this.isOver || miss());
        else miss();
      },
    });
    failedAtOnce = false;
    this.#underWay = dialling;
    const giveUp = () => dialling.cancel();
    this.#limitPatience(plan, endpoint, { isSilentAt: () => true, lapse: giveUp, cancel: giveUp });
  }

  #connectThroughTunnel(plan: ForwardPlan, endpoint: PlannedEndpoint): void {
    const { plane, pod } = this;
    const source = pooledTunnels(plane, pod, plan.source.identity, endpoint);
    const attempt = new ConnectAttempt(plane, source, this.#requestFields(plan, endpoint, traceparent(), null), {
      accepted: (stream) => this.#relayTo(endpoint, stream),
      refused: (refusal, fault) => this.#missed(plan, endpoint, refusal, faultAt(endpoint, fault)),
    });
    this.#start(plan, endpoint, attempt);
  }

  #connectThroughGateway(plan: ForwardPlan, endpoint: PlannedEndpoint, inner: InnerTunnel): void {
    const { plane, pod } = this;
    const trace = traceparent();
    let peerIdentity = '';
    const toGateway = this.#requestFields(plan, endpoint, trace, null);
    const source = innerTunnels(plane, pod, plan.source.identity, endpoint, inner, toGateway, (identity) => {
      peerIdentity = identity;
    });
    const fields = this.#requestFields(plan, endpoint, trace, inner.forwardedNetwork);
    const attempt = new ConnectAttempt(plane, source, fields, {
      accepted: (stream, headers) => {
        const baggage = fieldValue(headers, 'baggage');
        const told = baggage === null || !plane.settings.responseBaggage ? null : parseBaggage(baggage);
        this.know(contextOf(plan, endpoint, { identity: peerIdentity, baggage: told }));
        this.#relayTo(endpoint, stream);
      },
      refused: (refusal, fault) => this.#missed(plan, endpoint, refusal, faultAt(endpoint, fault)),
    });
    this.#start(plan, endpoint, attempt);
  }

  #start(plan: ForwardPlan, endpoint: PlannedEndpoint, attempt: ConnectAttempt): void {
    this.#underWay = attempt;
    attempt.start();
    if (attempt.isOver) return;
    if (attempt.isSent) this.#limitPatience(plan, endpoint, attempt);
    else this.#limitOnceCertified(plan, endpoint, attempt);
  }

  /** The wait for a certificate is not the endpoint's fault. */
  #limitOnceCertified(plan: ForwardPlan, endpoint: PlannedEndpoint, attempt: ConnectAttempt): void {
    const limit = () => attempt.isOver || this.#limitPatience(plan, endpoint, attempt);
    if (this.plane.identities.context(plan.source.identity, limit) !== null) limit();
  }

  #requestFields(
    plan: ForwardPlan,
    endpoint: PlannedEndpoint,
    trace: string,
    forwardedNetwork: string | null,
  ): readonly HeaderField[] {
    return connectRequestHeaders({
      authority: endpoint.authority,
      baggage: baggageOf(plan),
      forwarded: buildForwarded({ ip: this.peerIp, port: this.peerPort }, plan.service?.hostname ?? null),
      traceparent: trace,
      forwardedNetwork,
    });
  }

  #relayTo(endpoint: PlannedEndpoint, stream: Http2Stream): void {
    this.#reached(endpoint);
    this.relay = new TunnelRelay(this.plane.loop, this.channel, stream, 'client', this);
    this.relay.start();
  }
}

type ForwardPlan = Extract<OutboundPlan, { kind: 'forward' }>;

/** Each fails a little time; a client is told of a failure rather than kept waiting for the last of a thousand. */
const MAX_ATTEMPTS = 8;

/**
 * So many of the last of them go to the next tiers, as do those of the last so many times that an attempt may take, though
 * of half of the time at most: the others are for near ones, however short the time is.
 */
const FARTHER_ATTEMPTS = 2;

/** What health and its limits are about: the service, or the one address. */
function serviceOf(plan: ForwardPlan, { destinationIp }: OutboundConnection): string {
  return plan.service === null ? destinationIp : `${plan.service.namespace}/${plan.service.hostname}`;
}

/** A workload that answers 503 could not reach its own application; what a waypoint or gateway lacks lies beyond it. */
function faultAt({ authority, healthKey }: PlannedEndpoint, fault: Fault): Fault {
  return fault === 'beyond' && authority === healthKey ? 'endpoint' : fault;
}

const traceparent = createTraceparentSource();

/** Built once per plan: plans are shared by all connections to a destination. */
const baggages = new WeakMap<OutboundPlan, string>();

function baggageOf(plan: ForwardPlan): string {
  let baggage = baggages.get(plan);
  if (baggage === undefined) {
    baggage = buildBaggage(plan.source);
    baggages.set(plan, baggage);
  }
  return baggage;
}
