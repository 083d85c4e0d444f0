import { ENDPOINTS_EJECTED, SOCKETS_OPEN, STREAMS_OPEN, TUNNELS_OPEN } from '../metrics/families.ts';
import type { ThreadMetrics } from '../metrics/thread-metrics.ts';
import type { PodRuntime } from './pod-runtime.ts';

/** What is open in a thread. */
export interface OpenThings {
  pods(): Iterable<PodRuntime>;
  serverTunnels(): Iterable<Streams>;
  clientTunnels(): Iterable<Streams>;
}

interface Streams {
  readonly streamCount: number;
}

/** Counts what is open whenever metrics are asked for. */
export function reportGauges(metrics: ThreadMetrics, open: OpenThings): void {
  const slots = {
    outboundSockets: metrics.slot(SOCKETS_OPEN, 'source'),
    inboundSockets: metrics.slot(SOCKETS_OPEN, 'destination'),
    ejected: metrics.slot(ENDPOINTS_EJECTED),
    clientTunnels: metrics.slot(TUNNELS_OPEN, 'client'),
    serverTunnels: metrics.slot(TUNNELS_OPEN, 'server'),
    clientStreams: metrics.slot(STREAMS_OPEN, 'client'),
    serverStreams: metrics.slot(STREAMS_OPEN, 'server'),
  };
  metrics.beforeReport(() => {
    let outbound = 0;
    let plaintext = 0;
    let handshakes = 0;
    let ejected = 0;
    for (const pod of open.pods()) {
      for (const { listener } of pod.connections) {
        if (listener === 'outbound') outbound++;
        else if (listener === 'inbound-plaintext') plaintext++;
      }
      for (const { role } of pod.handshakes) if (role === 'server') handshakes++;
      ejected += pod.balancer.ejectedCount;
    }
    const server = countStreams(open.serverTunnels());
    const client = countStreams(open.clientTunnels());
    metrics.set(slots.outboundSockets, outbound);
    metrics.set(slots.inboundSockets, plaintext + handshakes + server.tunnels);
    metrics.set(slots.ejected, ejected);
    metrics.set(slots.clientTunnels, client.tunnels);
    metrics.set(slots.serverTunnels, server.tunnels);
    metrics.set(slots.clientStreams, client.streams);
    metrics.set(slots.serverStreams, server.streams);
  });
}

function countStreams(connections: Iterable<Streams>): { tunnels: number; streams: number } {
  let tunnels = 0;
  let streams = 0;
  for (const { streamCount } of connections) {
    tunnels++;
    streams += streamCount;
  }
  return { tunnels, streams };
}
