import type { ChannelId } from '../../native/channel.ts';
import type { CulvertError } from '../errors.ts';
import type { Filter } from '../filters/chain.ts';
import type { ProxiedConnection } from '../filters/connection.ts';
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
  giveUp: (() => void) | null;
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
      if (plan?.kind !== 'deliver' || connection.giveUp !== null) return PENDING;
      let isStarting = true;
      connection.giveUp = connectToApplication(plane, pod, dialled(plan, plane), peerIp, {
        connected(channel) {
          connection.giveUp = null;
          connection.application = channel;
          connection.proceed();
        },
        failed(error: CulvertError) {
          connection.giveUp = null;
          connection.connectError = close('connect-failed', error.message);
          // One that fails at once is judged here and now.
          if (!isStarting) connection.proceed();
        },
      });
      isStarting = false;
      return connection.connectError ?? PENDING;
    },
  };
}

/** An application tunnel with PROXY is served on loopback (spec §4.2, step 8). */
function dialled(plan: Extract<InboundPlan, { kind: 'deliver' }>, plane: Plane): SocketAddress {
  if (plan.appTunnel === null || !plane.settings.localhostAppTunnel || isLoopback(plan.target.ip)) return plan.target;
  return { ip: isIpv4(plan.target.ip) ? '127.0.0.1' : '::1', port: plan.target.port };
}
