/** What both ends of the bench's own tunnels share: the agent's values (src/config). */
import { createPrivateKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { ChannelLoop } from '../../native/channel.ts';
import { connectRequestHeaders, responseHeaders } from '../../src/hbone/connect-headers.ts';
import type { Http2Options } from '../../src/hbone/connection.ts';
import type { HeaderField } from '../../src/hbone/hpack.ts';
import { WindowBudget } from '../../src/hbone/window-budget.ts';

export const LOOPBACK = '127.0.0.1';
export const TRUST_DOMAIN = 'cluster.local';
/** The key exchange of an agent by default. */
export const TLS_GROUPS = '*X25519MLKEM768:*X25519:P-256';

/** A loop that ends the process when a handler throws. */
export function createLoop(): ChannelLoop {
  const loop = new ChannelLoop((error) => {
    console.error(error);
    process.exit(1);
  });
  loop.setStreamOptions({ mark: 0, keepalive: { time: 180, interval: 180, retries: 9 }, userTimeoutMs: 0 });
  return loop;
}

/** A TLS context from PEM files. */
export function readContext(loop: ChannelLoop, key: string, chain: string, roots: string, groups: string): number {
  return loop.newTlsContext({
    chainPem: readFileSync(chain, 'utf8'),
    key: createPrivateKey(readFileSync(key)),
    rootsPem: readFileSync(roots, 'utf8'),
    groups,
    keyLogPath: '',
    tls12: false,
  });
}

export const http2: Omit<Http2Options, 'role'> = {
  initialWindow: 256 * 1024,
  maxWindow: 4 * 1024 * 1024,
  connectionWindow: 16 * 1024 * 1024,
  maxFrameSize: 1024 * 1024,
  maxHeaderListSize: 64 * 1024,
  maxConcurrentStreams: 0xffffffff,
  assumedPeerStreams: 100,
  budget: new WindowBudget(256 * 1024 * 1024),
  breached() {},
  now: () => performance.now(),
};

/** As long as the real ones, because every stream sends them. */
export const REQUEST: HeaderField[] = connectRequestHeaders({
  authority: '10.244.0.12:8080',
  baggage:
    'k8s.namespace.name=bench,k8s.deployment.name=near,service.name=near,service.version=v1,cloud.region=r1,cloud.availability_zone=z1',
  forwarded: 'for=10.244.0.11',
  traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
  forwardedNetwork: null,
});

export const ACCEPTED: HeaderField[] = responseHeaders(200, null);

/** Options of a listening socket of the bench. */
export const LISTENER = {
  mark: 0,
  keepalive: { time: 180, interval: 180, retries: 9 },
  userTimeoutMs: 0,
  reusePort: false,
  transparent: 'no',
  backlog: 4096,
  dualStack: false,
} as const;
