import type { ChannelId } from '../../native/channel.ts';
import type { FilterChain } from '../filters/chain.ts';
import { type ConnectionDump, ProxiedConnection } from '../filters/connection.ts';
import type { Dial } from '../filters/dial.ts';
import type { Plane, Pod } from '../filters/plane.ts';
import type { JudgedConnection } from '../filters/policy.ts';
import { broken, type Refusal } from '../filters/verdict.ts';
import { buildBaggage } from '../hbone/baggage.ts';
import { fieldValue, responseHeaders } from '../hbone/connect-headers.ts';
import { parseForwarded } from '../hbone/forwarded.ts';
import type { HeaderField } from '../hbone/hpack.ts';
import { ErrorCode } from '../hbone/http-error.ts';
import { buildProxyHeader } from '../hbone/proxy-protocol.ts';
import type { Http2Stream, StreamHandler, StreamReset } from '../hbone/stream.ts';
import { formatSocketAddress } from '../netns/address.ts';
import type { CompiledPolicies, PolicyConnection } from '../policy/types.ts';
import { EarlyBytes } from '../relay/early-bytes.ts';
import { TunnelRelay } from '../relay/tunnel-relay.ts';
import type { InboundPlan, WorkloadLabels } from '../routing/plan.ts';
import { policyFactsOf } from './context.ts';

/** The tunnel that a stream came in by. */
export interface TunnelSide {
  readonly pod: Pod;
  readonly peerIp: string;
  readonly peerPort: number;
  /** The pod's address that the tunnel was opened to. */
  readonly localIp: string;
  readonly localPort: number;
  /** SPIFFE id that the peer has proved. */
  readonly peerIdentity: string;
}

/** One CONNECT stream of a tunnel on 15008 (spec §4.2). */
export class TunnelStream extends ProxiedConnection implements StreamHandler, JudgedConnection {
  readonly plane: Plane;
  readonly pod: Pod;
  readonly peerIdentity: string;
  readonly authority: string;
  /** Of the request; let go of once the context is known, as held connections are many. */
  headers: readonly HeaderField[];
  /** The service that the client says it addressed. */
  claimedService: string | null = null;
  plan: InboundPlan | null = null;
  application: ChannelId = 0;
  dialling: Dial | null = null;
  connectError: Refusal | null = null;
  /** The answer's baggage, from the metadata filter. */
  responseBaggage: string | null = null;
  readonly #chain: FilterChain<TunnelStream>;
  readonly #stream: Http2Stream;
  #relay: TunnelRelay | null = null;
  /** What the client sent before it was answered; bounded by the stream's window. */
  #early: EarlyBytes | null = null;
  #earlyEnd = false;

  constructor(
    plane: Plane,
    tunnel: TunnelSide,
    stream: Http2Stream,
    request: { authority: string; headers: readonly HeaderField[] },
    chain: FilterChain<TunnelStream>,
  ) {
    super(
      tunnel.pod,
      'inbound-hbone',
      { ip: tunnel.peerIp, port: tunnel.peerPort },
      { ip: tunnel.localIp, port: tunnel.localPort },
    );
    this.plane = plane;
    this.pod = tunnel.pod;
    this.peerIdentity = tunnel.peerIdentity;
    this.authority = request.authority;
    this.headers = request.headers;
    this.#stream = stream;
    this.#chain = chain;
    tunnel.pod.connections.add(this);
  }

  chain(): FilterChain<this> {
    return this.#chain as unknown as FilterChain<this>;
  }

  policies(): CompiledPolicies | null {
    return this.pod.policies;
  }

  whenPoliciesChange(done: () => void): void {
    this.pod.whenPoliciesChange(done);
  }

  policyFacts(): PolicyConnection {
    const { plan, peerIp, peerIdentity } = this;
    if (plan?.kind === 'deliver') return policyFactsOf(plan, peerIp, peerIdentity, plan.target);
    return {
      sourceIp: peerIp,
      sourceIdentity: peerIdentity,
      destinationIp: this.destinationIp,
      destinationPort: 0,
    };
  }

  pass(): void {
    const { plan, plane } = this;
    if (plan?.kind !== 'deliver') return;
    const { loop } = plane;
    const application = this.application;
    this.application = 0;
    this.#stream.respond(responseHeaders(200, this.responseBaggage), false);
    // Sending can be what shows that the tunnel is broken.
    if (this.isOver) {
      loop.reset(application);
      return;
    }
    const relay = new TunnelRelay(loop, application, this.#stream, 'server', this);
    this.#relay = relay;
    relay.start();
    if (plan.appTunnel !== null) {
      const source = { ip: this.peerIp, port: this.peerPort };
      const header = buildProxyHeader(source, plan.appTunnel.destination, this.peerIdentity);
      loop.memory.set(header, 0);
      loop.write(application, 0, header.length);
    }
    if (this.#early !== null) relay.streamBytes(this.#early.bytes);
    this.#early = null;
    if (this.#earlyEnd) relay.streamEnded();
  }

  dismiss(refusal: Refusal): void {
    this.#release();
    this.#stream.respond(responseHeaders(refusal.status, null), true);
    // RFC 9113 §8.1: the answer is complete, the rest of the request is not wanted.
    this.#stream.reset(ErrorCode.NO_ERROR);
  }

  cut(refusal: Refusal): void {
    if (this.isOver) return;
    if (this.#relay !== null) this.#relay.cut();
    else this.dismiss(refusal);
    this.finish(refusal);
  }

  describe(): ConnectionDump {
    const target = this.plan?.kind === 'deliver' ? formatSocketAddress(this.plan.target) : this.authority;
    return {
      direction: 'inbound',
      src: formatSocketAddress({ ip: this.peerIp, port: this.peerPort }),
      originalDst: this.claimedService,
      actualDst: target,
      protocol: 'HBONE',
    };
  }

  // The stream, until the relay takes over.

  streamResponse(): void {}

  streamData(offset: number, length: number): void {
    this.#early ??= new EarlyBytes();
    this.#early.append(this.plane.loop.memory.subarray(offset, offset + length));
  }

  streamEnded(): void {
    this.#earlyEnd = true;
  }

  streamReset(reset: StreamReset): void {
    this.#release();
    this.finish(broken('client-gone', `client disconnected before the connection was made: ${reset.detail}`));
  }

  streamWritable(): void {}

  #release(): void {
    this.dialling?.cancel();
    this.dialling = null;
    if (this.application !== 0) this.plane.loop.reset(this.application);
    this.application = 0;
    this.#early = null;
  }
}

/** The service that the client says it addressed. */
export function claimedHost(headers: readonly HeaderField[]): string | null {
  const forwarded = fieldValue(headers, 'forwarded');
  return forwarded === null ? null : parseForwarded(forwarded).host;
}

const baggages = new WeakMap<WorkloadLabels, string>();

/** `baggage` of the answer: who served it. Built once per plan. */
export function baggageOf(labels: WorkloadLabels): string {
  let baggage = baggages.get(labels);
  if (baggage === undefined) {
    baggage = buildBaggage(labels);
    baggages.set(labels, baggage);
  }
  return baggage;
}
