import type { Accepted, ChannelError, ChannelHandler, ChannelId } from '../../native/channel.ts';
import type { FilterChain } from '../filters/chain.ts';
import { type ConnectionDump, ProxiedConnection } from '../filters/connection.ts';
import type { Plane, Pod } from '../filters/plane.ts';
import type { JudgedConnection } from '../filters/policy.ts';
import { close, type Refusal } from '../filters/verdict.ts';
import { formatSocketAddress } from '../netns/address.ts';
import type { CompiledPolicies, PolicyConnection } from '../policy/types.ts';
import { PlainRelay } from '../relay/plain-relay.ts';
import type { InboundPlan } from '../routing/plan.ts';

/** A plain connection to the pod, captured on 15006 (spec §2.5). */
export class PlaintextConnection extends ProxiedConnection implements ChannelHandler, JudgedConnection {
  readonly plane: Plane;
  readonly pod: Pod;
  plan: InboundPlan | null = null;
  /** The application's connection, once the connect filter has it. */
  application: ChannelId = 0;
  giveUp: (() => void) | null = null;
  connectError: Refusal | null = null;
  readonly #chain: FilterChain<PlaintextConnection>;
  readonly #channel: ChannelId;
  #relay: PlainRelay | null = null;

  constructor(plane: Plane, pod: Pod, accepted: Accepted, chain: FilterChain<PlaintextConnection>) {
    super(
      pod,
      'inbound-plaintext',
      { ip: accepted.peerIp, port: accepted.peerPort },
      { ip: accepted.destinationIp, port: accepted.destinationPort },
      plane.now(),
    );
    this.plane = plane;
    this.pod = pod;
    this.#chain = chain;
    this.#channel = accepted.channel;
    plane.loop.adopt(accepted.channel, this);
    pod.connections.add(this);
  }

  chain(): FilterChain<this> {
    return this.#chain as unknown as FilterChain<this>;
  }

  get target() {
    return { ip: this.destinationIp, port: this.destinationPort };
  }

  policies(): CompiledPolicies | null {
    return this.pod.policies;
  }

  policyFacts(): PolicyConnection {
    return {
      sourceIp: this.peerIp,
      sourceIdentity: null,
      destinationIp: this.destinationIp,
      destinationPort: this.destinationPort,
    };
  }

  pass(): void {
    const relay = new PlainRelay(this.plane.loop, this.#channel, this.application, this);
    this.#relay = relay;
    this.application = 0;
    relay.start();
  }

  dismiss(): void {
    this.#release();
    this.plane.loop.reset(this.#channel);
  }

  cut(refusal: Refusal): void {
    if (this.isOver) return;
    if (this.#relay !== null) this.#relay.cut();
    else this.dismiss();
    this.finish(refusal);
  }

  describe(): ConnectionDump {
    return {
      direction: 'inbound',
      src: formatSocketAddress({ ip: this.peerIp, port: this.peerPort }),
      originalDst: null,
      actualDst: formatSocketAddress(this.target),
      protocol: 'TCP',
    };
  }

  // The client's connection, until the relay takes over.

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

  #release(): void {
    this.giveUp?.();
    this.giveUp = null;
    if (this.application !== 0) this.plane.loop.reset(this.application);
    this.application = 0;
  }
}
