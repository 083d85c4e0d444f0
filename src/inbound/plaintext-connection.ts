import type { Accepted, ChannelId } from '../../native/channel.ts';
import { CapturedConnection } from '../filters/captured-connection.ts';
import type { FilterChain } from '../filters/chain.ts';
import type { ConnectionDump } from '../filters/connection.ts';
import type { Dial } from '../filters/dial.ts';
import type { Plane, Pod } from '../filters/plane.ts';
import type { JudgedConnection } from '../filters/policy.ts';
import type { Refusal } from '../filters/verdict.ts';
import { formatSocketAddress } from '../netns/address.ts';
import type { CompiledPolicies, PolicyConnection } from '../policy/types.ts';
import { PlainRelay } from '../relay/plain-relay.ts';
import type { InboundPlan } from '../routing/plan.ts';
import { policyFactsOf } from './context.ts';

/** A plain connection to the pod, captured on 15006 (spec §2.5). */
export class PlaintextConnection extends CapturedConnection implements JudgedConnection {
  /** It proves nothing, and has no request. */
  readonly peerIdentity = '';
  readonly authority = '';
  plan: InboundPlan | null = null;
  /** The application's connection, once the connect filter has it. */
  application: ChannelId = 0;
  dialling: Dial | null = null;
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
    const { plan, peerIp, target } = this;
    if (plan?.kind === 'deliver') return policyFactsOf(plan, peerIp, null, target);
    return { sourceIp: peerIp, sourceIdentity: null, destinationIp: target.ip, destinationPort: target.port };
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
    this.dialling?.cancel();
    this.dialling = null;
    if (this.application !== 0) this.plane.loop.reset(this.application);
    this.application = 0;
  }
}
