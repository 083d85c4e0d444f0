import type { ChannelId } from '../../native/channel.ts';
import { CulvertError } from '../errors.ts';
import { dial } from '../filters/dial.ts';
import type { Plane, Pod } from '../filters/plane.ts';
import { isLoopback, type SocketAddress } from '../netns/address.ts';

/**
 * Connects to an application of the pod, from inside its namespace and, where permitted, with the client's address
 * (spec §2.3). Returns what gives up.
 */
export function connectToApplication(
  plane: Plane,
  pod: Pod,
  target: SocketAddress,
  clientIp: string,
  outcome: { connected(channel: ChannelId): void; failed(error: CulvertError): void },
): () => void {
  // What listens on loopback can only answer there: the kernel sends nothing from 127.0.0.1 to another address.
  const source = pod.canSpoof && !isLoopback(target.ip) ? clientIp : null;
  return dial(plane, pod, target, source, {
    connected: (channel) => outcome.connected(channel),
    failed: (error) =>
      outcome.failed(new CulvertError(error.code, `connection failed: ${error.message}`, { cause: error })),
  });
}
