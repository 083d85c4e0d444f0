import type { ChannelError } from '../../native/channel.ts';
import { CulvertError } from '../errors.ts';
import { dial } from '../filters/dial.ts';
import type { Handshake, Plane, Pod } from '../filters/plane.ts';
import type { DialEvents, TunnelKey } from '../hbone/pool.ts';
import { formatSocketAddress } from '../netns/address.ts';
import { countFailed, TunnelHandshake } from './tunnel-handshake.ts';

/** Opens tunnels for the pool: TCP from the pod's namespace, TLS with the pod's certificate, HTTP/2. */
export function createTunnelDialer(
  plane: Plane,
  podOf: (uid: string) => Pod | null,
): (key: TunnelKey, events: DialEvents) => void {
  return (key, events) => {
    const pod = podOf(key.pod);
    const start = (context: number | CulvertError) => {
      if (typeof context !== 'number') events.failed(context);
      // The number of its namespace's descriptor may stand for another pod's by now.
      else if (pod === null || pod.stopped) events.failed(new CulvertError('POOL_DRAINING', 'pool draining'));
      else connect(plane, pod, key, events);
    };
    // Without a certificate there is nothing to connect for.
    const context = pod === null ? 0 : plane.identities.context(key.source, start);
    if (context !== null) start(context);
  };
}

function connect(plane: Plane, pod: Pod, key: TunnelKey, events: DialEvents): void {
  const { loop, pool } = plane;
  const fail = (error: CulvertError) => {
    pod.handshakes.delete(connecting);
    countFailed(plane, error);
    events.failed(error);
  };
  const connecting: Handshake = {
    role: 'client',
    abandon() {
      dialling.cancel();
      fail(new CulvertError('POOL_DRAINING', 'pool draining'));
    },
  };
  pod.handshakes.add(connecting);
  const dialling = dial(plane, pod, { ip: key.ip, port: key.port }, null, {
    started: (channel) => plane.tunnelOpening(loop.localPort(channel)),
    connected(channel) {
      pod.handshakes.delete(connecting);
      const handshake = new TunnelHandshake(plane, pod, {
        source: key.source,
        expected: key.expected,
        peer: formatSocketAddress({ ip: key.ip, port: key.port }),
        logSecrets: plane.logsSecretsOf(key.ip),
        opened: (connection) => events.opened(connection),
        failed: (error) => events.failed(error),
        streamClosed: (connection) => pool.streamClosed(connection),
      });
      loop.adopt(channel, handshake);
      // The certificate is asked for again: it may have been replaced while the connection was made.
      handshake.start(channel);
    },
    failed: (error) => fail(connectError(error)),
  });
}

function connectError(error: ChannelError): CulvertError {
  const hint =
    error.code === 'ETIMEDOUT'
      ? 'connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008'
      : 'connection failed';
  return new CulvertError(error.code, `${hint}: ${error.message}`, { cause: error });
}
