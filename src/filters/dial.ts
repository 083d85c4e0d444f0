import type { ChannelError, ChannelHandler, ChannelId } from '../../native/channel.ts';
import { CulvertError } from '../errors.ts';
import type { SocketAddress } from '../netns/address.ts';
import type { Plane, Pod } from './plane.ts';

/** Who hears what becomes of a connection to somebody else: `connected` or `failed` is called, once. */
export interface DialOutcome {
  /** The connect is under way: the port of this end is known. */
  started?(channel: ChannelId): void;
  /** The channel is paused and has no handler yet: adopt it within the call. */
  connected(channel: ChannelId): void;
  /** An errno name as the code; ETIMEDOUT also when the deadline passed. Called before `dial` returns if it fails at once. */
  failed(error: ChannelError): void;
}

/**
 * Connects from inside the pod's namespace, from the address `source` when there is one, within the deadline for
 * connecting. Returns what gives up: then neither outcome is told.
 */
export function dial(
  plane: Plane,
  pod: Pod,
  target: SocketAddress,
  source: string | null,
  outcome: DialOutcome,
): () => void {
  const { loop, deadlines } = plane;
  let channel: ChannelId = 0;
  let over = false;
  const fail = (error: ChannelError) => {
    if (over) return;
    over = true;
    deadline.clear();
    if (channel !== 0) loop.close(channel);
    outcome.failed(error);
  };
  const handler: ChannelHandler = {
    connected() {
      if (over) return;
      over = true;
      deadline.clear();
      outcome.connected(channel);
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
    channel = loop.connect(pod.netns, target.ip, target.port, source, handler);
    outcome.started?.(channel);
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
