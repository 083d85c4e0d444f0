import { ILLEGAL_PORTS } from '../config/ports.ts';
import { isLoopback } from '../netns/address.ts';
import type { Filter } from './chain.ts';
import type { ProxiedConnection } from './connection.ts';
import { CONTINUE, close, type Refusal } from './verdict.ts';

/** Keeps the agent from calling itself (spec §2.4). */
export function loopGuard<C extends ProxiedConnection>(leadsToUs: (connection: C) => boolean): Filter<C> {
  return {
    name: 'loop-guard',
    check: (connection) => (leadsToUs(connection) ? selfCall() : CONTINUE),
  };
}

export function isIllegalPort(port: number): boolean {
  return ILLEGAL_PORTS.includes(port);
}

/**
 * Outbound: our own ports on loopback, or dialled directly instead of having been redirected. The kernel records an
 * original destination for connections that nobody redirected as well; a pod that dials its own address is told by coming
 * from that address.
 */
export function callsOwnListener(connection: ProxiedConnection & { readonly isRedirected: boolean }): boolean {
  const { destinationIp, destinationPort, peerIp, isRedirected } = connection;
  if (!isIllegalPort(destinationPort)) return false;
  return !isRedirected || isLoopback(destinationIp) || destinationIp === peerIp;
}

function selfCall(): Refusal {
  return close('self-call', 'attempted recursive call to ourselves');
}
