import type { Accepted, ChannelError, ChannelHandler, ChannelId } from '../../native/channel.ts';
import type { Deadline } from '../deadlines.ts';
import { CulvertError } from '../errors.ts';
import type { FilterChain } from '../filters/chain.ts';
import { type ConnectionDump, ProxiedConnection } from '../filters/connection.ts';
import type { Plane, Pod } from '../filters/plane.ts';
import { close, type Refusal } from '../filters/verdict.ts';
import { buildBaggage } from '../hbone/baggage.ts';
import { connectRequestHeaders, readResponseHead } from '../hbone/connect-headers.ts';
import type { Http2Connection } from '../hbone/connection.ts';
import { buildForwarded } from '../hbone/forwarded.ts';
import type { HeaderField } from '../hbone/hpack.ts';
import { ErrorCode } from '../hbone/http-error.ts';
import type { TunnelRequest } from '../hbone/pool.ts';
import type { Http2Stream, StreamHandler, StreamReset } from '../hbone/stream.ts';
import { createTraceparentSource } from '../hbone/traceparent.ts';
import type { ResponseFlag } from '../metrics/traffic-labels.ts';
import { formatSocketAddress } from '../netns/address.ts';
import { PlainRelay } from '../relay/plain-relay.ts';
import { TunnelRelay } from '../relay/tunnel-relay.ts';
import type { OutboundPlan, PlannedEndpoint } from '../routing/plan.ts';

/** A connection that an application of the pod makes, captured on 15001 (spec §3). */
export class OutboundConnection extends ProxiedConnection implements ChannelHandler, StreamHandler, TunnelRequest {
  readonly plane: Plane;
  readonly pod: Pod;
  readonly isRedirected: boolean;
  plan: OutboundPlan | null = null;
  endpoint: PlannedEndpoint | null = null;
  readonly #chain: FilterChain<OutboundConnection>;
  readonly #channel: ChannelId;
  #upstream: ChannelId = 0;
  #stream: Http2Stream | null = null;
  #relay: TunnelRelay | PlainRelay | null = null;
  #deadline: Deadline | null = null;
  #retries = 0;

  constructor(plane: Plane, pod: Pod, accepted: Accepted, chain: FilterChain<OutboundConnection>) {
    super(
      pod,
      'outbound',
      { ip: accepted.peerIp, port: accepted.peerPort },
      { ip: accepted.destinationIp, port: accepted.destinationPort },
      plane.now(),
    );
    this.plane = plane;
    this.pod = pod;
    this.isRedirected = accepted.original;
    this.#chain = chain;
    this.#channel = accepted.channel;
    plane.loop.adopt(accepted.channel, this);
    pod.connections.add(this);
  }

  chain(): FilterChain<this> {
    return this.#chain as unknown as FilterChain<this>;
  }

  pass(): void {
    const endpoint = this.endpoint!;
    if (endpoint.protocol === 'tcp') this.#connectPlain(endpoint);
    else if (endpoint.inner === null) this.#requestTunnel();
    else this.refuse(close('needs-double-hbone', 'double HBONE is not spoken by this version'));
  }

  dismiss(): void {
    this.#release();
    // The application has been told that it is connected: only a reset says that it is not (spec §18.2, defect 9).
    this.plane.loop.reset(this.#channel);
  }

  cut(refusal: Refusal): void {
    if (this.isOver) return;
    if (this.#relay !== null) this.#relay.cut();
    else this.dismiss();
    this.finish(refusal);
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

  // The tunnel.

  tunnel(connection: Http2Connection): void {
    if (this.isOver) return;
    const { plan, plane } = this;
    if (plan?.kind !== 'forward') return;
    const headers = connectRequestHeaders({
      authority: this.endpoint!.authority,
      baggage: baggageOf(plan),
      forwarded: buildForwarded({ ip: this.peerIp, port: this.peerPort }, plan.service?.hostname ?? null),
      traceparent: traceparent(),
      forwardedNetwork: null,
    });
    const stream = connection.open(headers, this);
    // Sending can be what shows that the tunnel is broken.
    if (this.isOver) return;
    if (stream === null) {
      // It filled up or went away between the pool's look and now.
      this.#requestTunnel();
      return;
    }
    this.#stream = stream;
    this.#deadline = plane.deadlines.response.set(() => {
      this.#stream?.reset(ErrorCode.CANCEL);
      this.refuse(close('no-response', 'the peer did not answer the CONNECT request in time'));
    });
  }

  noTunnel(error: CulvertError): void {
    if (!this.isOver) this.refuse(close('tunnel-failed', error.message, 503, flagOf(error)));
  }

  streamHeaders(fields: readonly HeaderField[]): void {
    const head = readResponseHead(fields);
    if (head.kind === 'interim' || this.#stream === null) return;
    this.#deadline?.clear();
    if (head.kind === 'malformed') {
      this.#refuseMalformed(`malformed response: ${head.detail}`);
      return;
    }
    if (head.status !== 200) {
      this.#stream.reset(ErrorCode.CANCEL);
      this.refuse(close('refused-by-peer', `http status: ${head.status} ${STATUS_TEXTS[head.status] ?? ''}`.trim()));
      return;
    }
    const relay = new TunnelRelay(this.plane.loop, this.#channel, this.#stream, 'client', this);
    this.#relay = relay;
    this.#stream = null;
    relay.start();
  }

  streamReset(reset: StreamReset): void {
    this.#stream = null;
    this.#deadline?.clear();
    if (this.isOver) return;
    // Nothing was sent on it: the peer says, or it is known, that it did not act on the request (RFC 9113 §8.7).
    if (this.#retries < MAX_RETRIES && (reset.unprocessed || reset.code === ErrorCode.REFUSED_STREAM)) {
      this.#retries++;
      this.#requestTunnel();
      return;
    }
    this.refuse(close('tunnel-lost', `h2 failed: ${reset.detail}`, 503, 'H2_HANDSHAKE_FAILURE'));
  }

  streamData(): void {
    this.#refuseMalformed('data before the response');
  }

  streamEnded(): void {
    if (!this.isOver) this.#refuseMalformed('the stream ended before the response');
  }

  streamWritable(): void {}

  // The application's connection, until the relay takes over.

  failed(error: ChannelError): void {
    this.#release();
    this.plane.loop.close(this.#channel);
    this.finish(close('client-gone', `client disconnected before the connection was made: ${error.message}`));
  }

  ended(): void {}
  data(): number {
    return 0;
  }
  connected(): void {}
  secured(): void {}
  drained(): void {}
  closed(): void {}

  /** RFC 9113 §8.1.1 */
  #refuseMalformed(message: string): void {
    this.#stream?.reset(ErrorCode.PROTOCOL_ERROR);
    this.refuse(close('malformed-response', message, 503, 'H2_HANDSHAKE_FAILURE'));
  }

  #requestTunnel(): void {
    const { address, expectedIdentities } = this.endpoint!;
    const { plan } = this;
    if (plan?.kind !== 'forward') return;
    this.plane.pool.request(
      {
        source: plan.source.identity,
        expected: expectedIdentities,
        ip: address.ip,
        port: address.port,
        pod: this.pod.info.uid,
      },
      this,
    );
  }

  #connectPlain({ address }: PlannedEndpoint): void {
    const { loop, deadlines } = this.plane;
    const upstream: ChannelHandler = {
      connected: () => {
        this.#deadline?.clear();
        const relay = new PlainRelay(loop, this.#channel, this.#upstream, this);
        this.#relay = relay;
        this.#upstream = 0;
        relay.start();
      },
      failed: (error) => {
        this.#deadline?.clear();
        loop.close(this.#upstream);
        this.#upstream = 0;
        this.refuse(close('connect-failed', `io error: ${error.message}`));
      },
      ended: () => {},
      data: () => 0,
      secured: () => {},
      drained: () => {},
      closed: () => {},
    };
    try {
      this.#upstream = loop.connect(this.pod.netns, address.ip, address.port, null, upstream);
    } catch (error) {
      upstream.failed(error as ChannelError);
      return;
    }
    this.#deadline = deadlines.connect.set(() =>
      upstream.failed(new CulvertError('ETIMEDOUT', 'deadline has elapsed')),
    );
  }

  /** Lets go of whatever was on the way to the other side. */
  #release(): void {
    this.#deadline?.clear();
    this.#stream?.reset(ErrorCode.CANCEL);
    this.#stream = null;
    if (this.#upstream !== 0) this.plane.loop.reset(this.#upstream);
    this.#upstream = 0;
  }
}

/** Every thread of an agent that is being replaced may send a stream away once. */
const MAX_RETRIES = 8;

const traceparent = createTraceparentSource();

/** Built once per plan: plans are shared by all connections to a destination. */
const baggages = new WeakMap<OutboundPlan, string>();

function baggageOf(plan: Extract<OutboundPlan, { kind: 'forward' }>): string {
  let baggage = baggages.get(plan);
  if (baggage === undefined) {
    baggage = buildBaggage(plan.source);
    baggages.set(plan, baggage);
  }
  return baggage;
}

const STATUS_TEXTS: Record<number, string> = {
  400: 'Bad Request',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'Not Found',
  429: 'Too Many Requests',
  500: 'Internal Server Error',
  502: 'Bad Gateway',
  503: 'Service Unavailable',
  504: 'Gateway Timeout',
};

/** `response_flags` for a tunnel that could not be opened (spec §12.2). */
function flagOf(error: CulvertError): ResponseFlag {
  if (error.code === 'ETIMEDOUT') return 'NETWORK_POLICY';
  if (error.code === 'NO_CERTIFICATE') return 'IDENTITY_ERROR';
  if (error.code !== 'TLS') return 'CONNECT';
  return error.message.includes('identity verification error') ? 'IDENTITY_ERROR' : 'TLS_FAILURE';
}
