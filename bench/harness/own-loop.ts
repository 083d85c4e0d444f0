import { type ChannelHandler, type ChannelId, ChannelLoop, NO_LIMIT } from '../../native/channel.ts';
import { listenTcp, raiseNofileLimit } from '../../native/netns.ts';
import type { Pod } from '../../src/demo/pod-network.ts';

/**
 * A loop of this process, which ends with the first bug, for both ends of many connections; `serve` makes what handles a
 * connection to the port of `server`.
 */
export function loopServing(
  server: Pod,
  port: number,
  serve: (loop: ChannelLoop, channel: ChannelId) => ChannelHandler,
): ChannelLoop {
  raiseNofileLimit();
  const loop = new ChannelLoop((error) => {
    throw error;
  });
  const { fd } = listenTcp(server.netns.fd, server.ipv4, port, {
    mark: 0,
    keepalive: null,
    userTimeoutMs: 0,
    reusePort: false,
    transparent: 'no',
    backlog: 4096,
    dualStack: false,
  });
  loop.listen(fd, false, {
    accepted: ({ channel }) => {
      loop.adopt(channel, serve(loop, channel));
      loop.resume(channel, NO_LIMIT);
    },
    failed: (error) => {
      throw error;
    },
  });
  return loop;
}
