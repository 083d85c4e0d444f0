import type { Accepted, ChannelId } from '../../native/channel.ts';
import { CapturedConnection } from '../filters/captured-connection.ts';
import type { FilterChain } from '../filters/chain.ts';
import type { ConnectionDump } from '../filters/connection.ts';
import type { Plane, Pod } from '../filters/plane.ts';
import type { JudgedConnection } from '../filters/policy.ts';
import type { Refusal } from '../filters/verdict.ts';
import { formatSocketAddress } from '../netns/address.ts';
import type { CompiledPolicies, PolicyConnection } from '../policy/types.ts';
import { PlainRelay } from '../relay/plain-relay.ts';
import type { InboundPlan } from '../routing/plan.ts';

/** A plain connection to the pod, captured on 15006 (spec §2.5). */
export class PlaintextConnection extends CapturedConnection implements JudgedConnection {
  plan: InboundPlan | null = null;
  /** The application's connection, once the connect filter has it. */
  application: ChannelId = 0;
  giveUp: (() => void) | null = null;
  connectError: Refusal | null = null;

  constructor(plane: Plane, pod: Pod, accepted: Accepted, chain: FilterChain<PlaintextConnection>) {
    super('inbound-plaintext', plane, pod, accepted, chain);
  }

  get target() {
    return { ip: this.destinationIp, port: this.destinationPort };
  }

  policies(): CompiledPolicies | null {
    return this.pod.policies;
  }

  whenPoliciesChange(done: () => void): void {
    this.pod.whenPoliciesChange(done);
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
    this.relay = new PlainRelay(this.plane.loop, this.channel, this.application, this);
    this.application = 0;
    this.relay.start();
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

  protected release(): void {
    this.giveUp?.();
    this.giveUp = null;
    if (this.application !== 0) this.plane.loop.reset(this.application);
    this.application = 0;
  }
}
