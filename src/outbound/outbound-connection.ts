import type { Accepted } from '../../native/channel.ts';
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
import { formatSocketAddress } from '../netns/address.ts';
import { PlainRelay } from '../relay/plain-relay.ts';
import { TunnelRelay } from '../relay/tunnel-relay.ts';
import type { InnerTunnel, OutboundPlan, PlannedEndpoint } from '../routing/plan.ts';
import { ConnectAttempt } from './connect-attempt.ts';
import { contextOf } from './context.ts';
import { innerTunnels, pooledTunnels } from './tunnels.ts';

/** A connection that an application of the pod makes, captured on 15001 (spec §3). */
export class OutboundConnection extends CapturedConnection {
  readonly isRedirected: boolean;
  plan: OutboundPlan | null = null;
  endpoint: PlannedEndpoint | null = null;
  /** Gives up what is on the way to the other side. */
  #giveUp: (() => void) | null = null;

  constructor(plane: Plane, pod: Pod, accepted: Accepted, chain: FilterChain<OutboundConnection>) {
    super('outbound', plane, pod, accepted, chain);
    this.isRedirected = accepted.original;
  }

  pass(): void {
    const { plan, endpoint } = this;
    if (plan?.kind !== 'forward' || endpoint === null) return;
    if (endpoint.protocol === 'tcp') this.#connectPlain(endpoint);
    else if (endpoint.inner === null) this.#connectThroughTunnel(plan, endpoint);
    else this.#connectThroughGateway(plan, endpoint, endpoint.inner);
  }

  override finish(refusal: Refusal | null): void {
    this.#giveUp = null;
    if (!this.isOver && this.context === null && this.plan?.kind === 'forward' && this.endpoint?.inner) {
      // The far end has not told who it is.
      this.know(contextOf(this.plan, this.endpoint));
    }
    super.finish(refusal);
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
    this.#giveUp?.();
    this.#giveUp = null;
  }

  #connectPlain({ address }: PlannedEndpoint): void {
    this.#giveUp = dial(this.plane, this.pod, address, null, {
      connected: (channel) => {
        this.#giveUp = null;
        this.relay = new PlainRelay(this.plane.loop, this.channel, channel, this);
        this.relay.start();
      },
      failed: (error) => this.refuse(close('connect-failed', `io error: ${error.message}`)),
    });
  }

  #connectThroughTunnel(plan: ForwardPlan, endpoint: PlannedEndpoint): void {
    const { plane, pod } = this;
    const source = pooledTunnels(plane, pod, plan.source.identity, endpoint);
    const attempt = new ConnectAttempt(plane, source, this.#requestFields(plan, endpoint, traceparent(), null), {
      accepted: (stream) => this.#relayTo(stream),
      refused: (refusal) => this.refuse(refusal),
    });
    this.#giveUp = () => attempt.cancel();
    attempt.start();
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
        this.#relayTo(stream);
      },
      refused: (refusal) => this.refuse(refusal),
    });
    this.#giveUp = () => attempt.cancel();
    attempt.start();
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

  #relayTo(stream: Http2Stream): void {
    this.#giveUp = null;
    this.relay = new TunnelRelay(this.plane.loop, this.channel, stream, 'client', this);
    this.relay.start();
  }
}

type ForwardPlan = Extract<OutboundPlan, { kind: 'forward' }>;

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
