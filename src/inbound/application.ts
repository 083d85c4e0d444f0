import type { ChannelError, ChannelHandler, ChannelId } from '../../native/channel.ts';
import { CulvertError } from '../errors.ts';
import type { Plane, Pod } from '../filters/plane.ts';
import { isLoopback, type SocketAddress } from '../netns/address.ts';

/**
 * Connects to an application of the pod, from inside its namespace and, where permitted, with the client's address
 * (spec §2.3). `connected` gets a channel that is paused and has no handler yet. Returns what gives up.
 */
export function connectToApplication(
  plane: Plane,
  pod: Pod,
  target: SocketAddress,
  clientIp: string,
  events: { connected(channel: ChannelId): void; failed(error: CulvertError): void },
): () => void {
  const { loop, deadlines } = plane;
  let channel: ChannelId = 0;
  let over = false;
  const fail = (error: ChannelError) => {
    if (over) return;
    over = true;
    deadline.clear();
    if (channel !== 0) loop.close(channel);
    events.failed(new CulvertError(error.code, `connection failed: ${error.message}`, { cause: error }));
  };
  const handler: ChannelHandler = {
    connected() {
      if (over) return;
      over = true;
      deadline.clear();
      events.connected(channel);
    },
    failed: fail,
    ended() {},
    data: () => 0,
    secured() {},
    drained() {},
    closed() {},
  };
  const deadline = deadlines.connect.set(() => fail(new CulvertError('ETIMEDOUT', 'deadline has elapsed')));
  try {
    // What listens on loopback can only answer there: the kernel sends nothing from 127.0.0.1 to another address.
    const source = pod.canSpoof && !isLoopback(target.ip) ? clientIp : null;
    channel = loop.connect(pod.netns, target.ip, target.port, source, handler);
  } catch (error) {
    fail(error as ChannelError);
  }
  return () => {
    if (over) return;
    over = true;
    deadline.clear();
    loop.reset(channel);
  };
}
