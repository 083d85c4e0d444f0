/**
 * Certificates: what a key and its request cost, how many round trips the first certificate of a pod takes, and whether
 * a thousand identities at once are felt by the threads that carry traffic.
 */
import { mkdirSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { openEmbeddedCa } from '../src/identity/embedded-ca.ts';
import { openIstioCa } from '../src/identity/istio-ca.ts';
import { createCertificateManager } from '../src/identity/manager.ts';
import { signCertificateRequest } from '../src/identity/signing.ts';
import { generateWorkloadKey } from '../src/identity/workload-key.ts';
import { makeTestCa, startTestCa, type TestCa } from '../test/support/istio-ca-server.ts';
import type { Bench } from './harness/bench.ts';
import { type Figure, median } from './harness/figures.ts';

const DAY_MS = 86_400_000;
const identity = (name: string | number) => `spiffe://cluster.local/ns/bench/sa/${name}`;
const quiet = { error() {}, warn() {}, debug() {} };

export const identityBench: Bench = async ({ folder, quick, progress }) => {
  progress('identity: requests for certificates');
  const request = await requestTimes(quick ? 50 : 500);
  progress('identity: round trips of the first certificate');
  const trips = await roundTrips(join(folder, 'ca-server'));
  progress('identity: a thousand identities');
  const many = await manyIdentities(join(folder, 'ca'), quick ? 200 : 1000);
  return [request, trips, ...many];
};

/** One after the other, as a pod that starts alone meets it. */
async function requestTimes(count: number): Promise<Figure> {
  const times: number[] = [];
  for (let i = 0; i < count; i++) {
    const start = performance.now();
    const { privateKey, publicKey } = await generateWorkloadKey();
    await signCertificateRequest(privateKey, identity(i), publicKey);
    times.push(performance.now() - start);
  }
  const value = median(times);
  const worst = times.toSorted((a, b) => a - b)[Math.floor(count * 0.99)]!;
  const printed = `${value.toFixed(2)} ms`;
  return {
    what: 'identity, key and certificate request',
    measured: `median of ${count}, p99 ${worst.toFixed(2)} ms`,
    value,
    printed,
    bound: { atMost: 1 },
  };
}

/** On the path to the CA every byte takes this long, one way. */
const PATH_MS = 100;

async function roundTrips(folder: string): Promise<Figure> {
  mkdirSync(folder);
  makeTestCa(folder);
  const ca = await startTestCa({ folder });
  // A path does not wait for more before it passes bytes on, as TCP's own algorithm would.
  const path = createServer({ noDelay: true }, (socket) => {
    const onward = connect({ port: ca.port, host: '127.0.0.1', noDelay: true });
    const late = (bytes: Buffer | string, to: typeof socket) =>
      setTimeout(() => to.writable && to.write(bytes), PATH_MS);
    socket.on('data', (bytes) => late(bytes, onward)).on('error', () => {});
    onward.on('data', (bytes) => late(bytes, socket)).on('error', () => {});
    socket.on('close', () => onward.destroy());
    onward.on('close', () => socket.destroy());
  });
  const port = await new Promise<number>((resolve) =>
    path.listen(0, '127.0.0.1', () => resolve((path.address() as { port: number }).port)),
  );
  const near = await issuingTime(ca, ca.port);
  const far = await issuingTime(ca, port);
  path.close();
  ca.stop();
  // What the CA takes itself is in both.
  const value = (far - near) / (2 * PATH_MS);
  return {
    what: 'identity, certificate from a CA far away',
    measured: `${far.toFixed(0)} ms at ${2 * PATH_MS} ms round trip, ${near.toFixed(0)} ms without`,
    value,
    printed: `${value.toFixed(2)} round trips`,
    // One, and noise of the machine; a second one would be 2.
    bound: { atMost: 1.2 },
  };
}

/** Median of the time until a certificate is there, in ms, on a connection that was made before. */
async function issuingTime(ca: TestCa, port: number): Promise<number> {
  const client = await openIstioCa({
    server: {
      prefix: 'CA',
      address: `https://127.0.0.1:${port}`,
      roots: { kind: 'file', path: ca.rootsFile },
      altHostname: null,
      token: { kind: 'none' },
      clusterId: 'Kubernetes',
      headers: [],
    },
    ttl: DAY_MS,
    account: { namespace: '', serviceAccount: '' },
    log: quiet,
  });
  await client.sign(identity('start'));
  const times: number[] = [];
  for (let i = 0; i < 9; i++) {
    const start = performance.now();
    await client.sign(identity(i));
    times.push(performance.now() - start);
  }
  client.close();
  return median(times);
}

async function manyIdentities(dir: string, count: number): Promise<Figure[]> {
  const authority = await openEmbeddedCa({ dir, ttl: DAY_MS, now: Date.now });
  const manager = createCertificateManager({ authority, log: quiet });
  const neighbour = new Worker(LAG_PROBE, { eval: true });
  const lag = () =>
    new Promise<number>((resolve) => {
      neighbour.once('message', resolve);
      neighbour.postMessage('p99');
    });
  await new Promise((resolve) => setTimeout(resolve, 1000));
  const idle = await lag();
  const start = performance.now();
  await Promise.all(Array.from({ length: count }, (_, i) => manager.get(identity(i))));
  const seconds = (performance.now() - start) / 1000;
  const busy = await lag();
  manager.close();
  await neighbour.terminate();
  return [
    {
      what: `identity, ${count} identities from the embedded CA`,
      measured: `${Math.round(count / seconds)}/s`,
      value: seconds,
      printed: `${seconds.toFixed(2)} s`,
      bound: { atMost: (10 * count) / 1000 },
    },
    {
      what: 'identity, lateness of another thread meanwhile',
      measured: `p99, idle ${idle.toFixed(2)} ms`,
      value: busy,
      printed: `${busy.toFixed(2)} ms`,
      bound: null,
    },
  ];
}

/** A thread that does nothing but notice how late its timers are, as one that carries traffic would be. */
const LAG_PROBE = `
  const { monitorEventLoopDelay } = require('node:perf_hooks');
  const { parentPort } = require('node:worker_threads');
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  parentPort.on('message', () => {
    parentPort.postMessage(Math.max(0, delay.percentile(99) / 1e6 - 1));
    delay.reset();
  });
`;
