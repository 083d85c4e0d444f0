/** Peers of the data plane by Node's own sockets, TLS and HTTP/2, and plans that lead to them. */

import { createServer as createHttp2, type ServerHttp2Stream } from 'node:http2';
import { createServer, type Socket } from 'node:net';
import { duplexPair } from 'node:stream';
import type { TestContext } from 'node:test';
import { createServer as createTls } from 'node:tls';
import { privateKeyPem } from '../../../src/identity/workload-key.ts';
import type { TUNNEL_TIMEOUTS } from '../../../src/metrics/families.ts';
import type { OutboundPlan } from '../../../src/routing/plan.ts';
import { dial, IDENTITY, LOCALHOST, type PlaneUnderTest, tunnelTo } from './plane-under-test.ts';

/** What a family's series with these labels counts now. */
export function count(rig: PlaneUnderTest, family: typeof TUNNEL_TIMEOUTS, ...labels: string[]): number {
  const slot = rig.metrics.slot(family, ...labels);
  return rig.metrics.report().values[slot] ?? 0;
}

/** A TCP server that tunnels of the pod go to; it ends with the test. */
export async function peer(t: TestContext, rig: PlaneUnderTest, serve: (socket: Socket) => void, ip = LOCALHOST) {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    serve(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, ip, resolve));
  t.after(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  const { port } = server.address() as { port: number };
  rig.answer = () => tunnelTo({ ...rig.ports, hbone: port }, 80);
  return port;
}

/** What a peer does on its wire. */
export interface Wire {
  /** Swallows what comes and goes from now on, without a sign. */
  vanish(): void;
  reset(): void;
}

/** The same with TLS by Node's own. */
export async function tlsPeer(
  t: TestContext,
  rig: PlaneUnderTest,
  serve: (socket: Socket, wire: Wire) => void,
  identity = IDENTITY,
) {
  const { privateKey, chainPem, rootsPem } = await rig.sign(identity);
  return peer(t, rig, (raw) => {
    // TLS reads from a socket's handle, which a pause of the socket does not stop.
    const [carried, carrier] = duplexPair();
    raw.pipe(carrier).pipe(raw);
    raw.on('close', () => carried.destroy());
    const wire: Wire = {
      vanish() {
        raw.unpipe(carrier).resume();
        carrier.unpipe(raw).resume();
      },
      reset: () => raw.resetAndDestroy(),
    };
    const tls = createTls(
      { key: privateKeyPem(privateKey), cert: chainPem, ca: rootsPem, requestCert: true, ALPNProtocols: ['h2'] },
      (socket) => {
        socket.on('error', () => {});
        serve(socket, wire);
      },
    );
    tls.on('tlsClientError', () => {});
    tls.emit('connection', carried);
  });
}

/** The same with HTTP/2 by Node's own. */
export async function http2Peer(
  t: TestContext,
  rig: PlaneUnderTest,
  serve: (stream: ServerHttp2Stream, wire: Wire) => void,
) {
  return tlsPeer(t, rig, (socket, wire) => {
    const http2 = createHttp2();
    http2.on('session', (session) => session.on('error', () => {}));
    http2.on('stream', (stream) => {
      stream.on('error', () => {});
      serve(stream as ServerHttp2Stream, wire);
    });
    http2.emit('connection', socket);
  });
}

/** A plan with tunnels to these ports, each with an application port of its own. */
export function twoEndpoints({ ports }: PlaneUnderTest, first: number, second: number): OutboundPlan {
  const [one, other] = [first, second].map((hbone, index) => tunnelTo({ ...ports, hbone }, 80 + index)) as [
    ForwardPlan,
    ForwardPlan,
  ];
  return { ...one, groups: [...one.groups, ...other.groups] };
}

/** The same endpoints as gateways of another network, where the application is. */
export function beyond(plan: OutboundPlan, app: number): OutboundPlan {
  if (plan.kind !== 'forward') return plan;
  return {
    ...plan,
    groups: plan.groups.map((group) => ({
      ...group,
      authority: { kind: 'fixed', text: `${LOCALHOST}:${app}` },
      inner: { expectedIdentities: [IDENTITY], forwardedNetwork: 'near' },
    })),
  };
}

export type ForwardPlan = Extract<OutboundPlan, { kind: 'forward' }>;

/** Asks through the pod once, and hears all of the answer. */
export async function hear(t: TestContext, rig: PlaneUnderTest) {
  const { socket, ended } = await dial(t, rig.ports.outbound);
  let heard = '';
  socket.setEncoding('utf8').on('data', (text: string) => {
    heard += text;
  });
  socket.end();
  return { end: await ended, heard };
}
