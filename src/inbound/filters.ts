import type { ChannelError, ChannelId } from '../../native/channel.ts';
import type { Filter } from '../filters/chain.ts';
import type { ProxiedConnection } from '../filters/connection.ts';
import type { Dial, DialOutcome } from '../filters/dial.ts';
import type { Plane, Pod } from '../filters/plane.ts';
import { CONTINUE, close, PENDING, type Refusal, type Verdict } from '../filters/verdict.ts';
import { isIpv4, isLoopback, type SocketAddress } from '../netns/address.ts';
import type { InboundPlan } from '../routing/plan.ts';
import { connectToApplication } from './application.ts';

/** What both kinds of inbound connections have: a plan, and an application to reach. */
export interface InboundConnection extends ProxiedConnection {
  readonly plane: Plane;
  readonly pod: Pod;
  plan: InboundPlan | null;
  /** 0 until connected. */
  application: ChannelId;
  /** While the application is being connected to. */
  dialling: Dial | null;
  connectError: Refusal | null;
}

/** Turns a plan into a verdict: pending while it is asked for. */
export function planVerdict(plan: InboundPlan | null): Verdict {
  if (plan === null) return PENDING;
  if (plan.kind === 'deliver') return CONTINUE;
  return close(plan.reason.tag, plan.reason.message, plan.status);
}

/** Connects to the application (spec §4.2, step 8). */
export function connect(): Filter<InboundConnection> {
  return {
    name: 'connect',
    check(connection) {
      if (connection.application !== 0) return CONTINUE;
      if (connection.connectError !== null) return connection.connectError;
      const { plan, plane, pod, peerIp } = connection;
      if (plan?.kind !== 'deliver' || connection.dialling !== null) return PENDING;
      const outcome = new ApplicationOutcome(connection);
      connection.dialling = connectToApplication(plane, pod, dialled(plan, plane), peerIp, outcome);
      outcome.isStarting = false;
      return connection.connectError ?? PENDING;
    },
  };
}

class ApplicationOutcome implements DialOutcome {
  readonly #connection: InboundConnection;
  isStarting = true;

  constructor(connection: InboundConnection) {
    this.#connection = connection;
  }

  connected(channel: ChannelId): void {
    this.#connection.dialling = null;
    this.#connection.application = channel;
    this.#connection.proceed();
  }

  failed(error: ChannelError): void {
    this.#connection.dialling = null;
    this.#connection.connectError = close('connect-failed', `connection failed: ${error.message}`);
    // One that fails at once is judged by the filter, here and now.
    if (!this.isStarting) this.#connection.proceed();
  }
}

/** An application tunnel with PROXY is served on loopback (spec §4.2, step 8). */
function dialled(plan: Extract<InboundPlan, { kind: 'deliver' }>, plane: Plane): SocketAddress {
  if (plan.appTunnel === null || !plane.settings.localhostAppTunnel || isLoopback(plan.target.ip)) return plan.target;
  return { ip: isIpv4(plan.target.ip) ? '127.0.0.1' : '::1', port: plan.target.port };
}
