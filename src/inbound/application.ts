import { type Dial, type DialOutcome, dial } from '../filters/dial.ts';
import type { Plane, Pod } from '../filters/plane.ts';
import { isLoopback, type SocketAddress } from '../netns/address.ts';

/**
 * Connects to an application of the pod, from inside its namespace and, where permitted, with the client's address
 * (spec §2.3).
 */
export function connectToApplication(
  plane: Plane,
  pod: Pod,
  target: SocketAddress,
  clientIp: string,
  outcome: DialOutcome,
): Dial {
  // What listens on loopback can only answer there: the kernel sends nothing from 127.0.0.1 to another address.
  const source = pod.canSpoof && !isLoopback(target.ip) ? clientIp : null;
  return dial(plane, pod, target, source, outcome);
}
