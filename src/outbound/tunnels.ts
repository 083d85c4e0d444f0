import { CulvertError } from '../errors.ts';
import type { Plane, Pod } from '../filters/plane.ts';
import type { HeaderField } from '../hbone/hpack.ts';
import { ErrorCode } from '../hbone/http-error.ts';
import type { TunnelKey } from '../hbone/pool.ts';
import { channelInStream } from '../hbone/stream-carrier.ts';
import { formatSocketAddress } from '../netns/address.ts';
import type { InnerTunnel, PlannedEndpoint } from '../routing/plan.ts';
import { ConnectAttempt, type TunnelSource } from './connect-attempt.ts';
import { TunnelHandshake } from './tunnel-handshake.ts';

/** Tunnels of the pool, from a pod to an endpoint or, when that is on another network, to the gateway in front of it. */
export function pooledTunnels(plane: Plane, pod: Pod, source: string, endpoint: PlannedEndpoint): TunnelSource {
  const known = pooled.get(endpoint);
  if (known?.pod === pod && known.source === source && known.plane === plane) return known.tunnels;
  const key = keyOf(pod, source, endpoint);
  const tunnels: TunnelSource = (attempt) => {
    plane.pool.request(key, attempt);
    // The pool passes over those that are over; the tunnel that it opens is there for the next one.
    return null;
  };
  pooled.set(endpoint, { plane, pod, source, tunnels });
  return tunnels;
}

/** One for all connections of a plan to an endpoint. */
const pooled = new WeakMap<
  PlannedEndpoint,
  { readonly plane: Plane; readonly pod: Pod; readonly source: string; readonly tunnels: TunnelSource }
>();

/**
 * Double HBONE (spec §3.6): tunnels inside a CONNECT stream of a tunnel to the gateway, end to end. One for each
 * connection: the gateway chooses who serves it per stream.
 *
 * @param fields of the request to the gateway
 * @param opened is told the SPIFFE id that the far end proved, before the attempt gets its tunnel
 */
export function innerTunnels(
  plane: Plane,
  pod: Pod,
  source: string,
  endpoint: PlannedEndpoint,
  inner: InnerTunnel,
  fields: readonly HeaderField[],
  opened: (peerIdentity: string) => void,
): TunnelSource {
  const key = keyOf(pod, source, endpoint);
  const via = `network gateway ${formatSocketAddress(endpoint.address)}`;
  return (attempt) => {
    let handshake: TunnelHandshake | null = null;
    let handshakeAt = 0;
    const outer = new ConnectAttempt(plane, pooledTunnels(plane, pod, source, endpoint), fields, {
      refused: (refusal, fault) => attempt.refuse({ ...refusal, message: `${via}: ${refusal.message}` }, fault),
      accepted(stream) {
        if (attempt.isOver || pod.stopped) {
          stream.reset(ErrorCode.CANCEL);
          return;
        }
        handshakeAt = plane.now();
        handshake = new TunnelHandshake(plane, pod, {
          source,
          expected: inner.expectedIdentities,
          peer: `${endpoint.authority} beyond ${via}`,
          logSecrets: plane.logsSecretsOf(endpoint.address.ip),
          opened(connection, peerIdentity) {
            plane.pool.lookAfter(key, connection);
            opened(peerIdentity);
            attempt.tunnel(connection);
            if (connection.streamCount === 0) connection.drain();
          },
          failed: ({ code, message }) => attempt.noTunnel(new CulvertError(code, `beyond ${via}: ${message}`)),
          streamClosed: (connection) => connection.drain(),
        });
        handshake.start(channelInStream(plane.loop, stream, handshake));
      },
    });
    outer.start();
    return {
      isSilentAt(now) {
        return handshake === null ? outer.isSilentAt(now) : now - handshakeAt >= plane.settings.attemptTimeout;
      },
      lapse() {
        // The tunnel to the gateway serves others well if only what is beyond it is silent.
        if (handshake === null) outer.lapse();
      },
      cancel() {
        outer.cancel();
        handshake?.cancel();
      },
    };
  };
}

function keyOf(pod: Pod, source: string, { address, expectedIdentities }: PlannedEndpoint): TunnelKey {
  return { source, expected: expectedIdentities, ip: address.ip, port: address.port, pod: pod.info.uid };
}
