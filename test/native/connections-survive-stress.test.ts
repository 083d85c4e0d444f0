/**
 * Many connections at once, over several threads, plain and TLS, through the smallest socket buffers, with pauses, closes
 * and resets at every moment of their lives. Every byte is checked, and what both ends were told must be one story.
 *
 * CULVERT_STRESS=long makes 100 000 connections; a number makes as many.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { closeFd } from '../../native/netns.ts';
import { assertNothingOpened, openDescriptors } from '../support/descriptors.ts';
import { createAuthority } from './authority.ts';
import { CLIENT_ID, SERVER_ID } from './secure-side.ts';
import { listenSomewhere } from './side.ts';
import { Ledger } from './stress/record.ts';
import { scriptOf } from './stress/script.ts';
import type { Order, Report } from './stress/thread.ts';
import { PROBES, tinyBuffers } from './stress/tiny-buffers.ts';

const THREADS = 3;
const AT_ONCE = 60;
const long = process.env.CULVERT_STRESS;
const CONNECTIONS = long === undefined ? 1200 : long === 'long' ? 100_000 : Number(long);
/** Without a single connection that ends in this time something is stuck. */
const PATIENCE_MS = 60_000;

test(`${CONNECTIONS} connections over ${THREADS} threads: what both ends were told is one story, and nothing is left`, {
  timeout: CONNECTIONS * 20 + 240_000,
}, async (t) => {
  const netns = await tinyBuffers(t);
  // What this thread keeps open once it has been in another namespace is no leak.
  closeFd(listenSomewhere(netns).fd);
  const before = openDescriptors();
  const authority = createAuthority();
  const client = authority.material({ uris: [CLIENT_ID] });
  const server = authority.material({ uris: [SERVER_ID] });
  const listeners = Array.from({ length: THREADS }, () => ({
    plain: listenSomewhere(),
    tls: listenSomewhere(),
    tinyPlain: listenSomewhere(netns, { keepalive: PROBES }),
    tinyTls: listenSomewhere(netns, { keepalive: PROBES }),
  }));
  const pick = (what: 'fd' | 'port') =>
    listeners.map(({ plain, tls, tinyPlain, tinyTls }) => ({
      plain: plain[what],
      tls: tls[what],
      tinyPlain: tinyPlain[what],
      tinyTls: tinyTls[what],
    }));
  const share = Math.ceil(CONNECTIONS / THREADS);
  const workers = pick('fd').map((listening, at) => {
    const order: Order = {
      probes: PROBES,
      netns,
      listening,
      ports: pick('port'),
      client,
      server,
      from: at * share,
      to: Math.min((at + 1) * share, CONNECTIONS),
      atOnce: AT_ONCE,
    };
    return new Worker(new URL('stress/thread.ts', import.meta.url), { workerData: order });
  });
  t.after(() => Promise.all(workers.map((worker) => worker.terminate())));

  const ledger = new Ledger(scriptOf);
  const stuck = Promise.withResolvers<never>();
  let patience: NodeJS.Timeout | undefined;
  t.after(() => clearTimeout(patience));
  const waiting = new Map<Worker, string>();
  const progress = () => {
    clearTimeout(patience);
    patience = setTimeout(() => stuck.reject(new Error(`stuck: ${[...waiting.values()].join('\n')}`)), PATIENCE_MS);
  };
  const failure = Promise.withResolvers<never>();
  const all = (kind: Report['kind']) =>
    Promise.all(
      workers.map(
        (worker) =>
          new Promise<Report>((resolve) =>
            worker.on('message', (report: Report) => {
              if (report.kind === kind) resolve(report);
            }),
          ),
      ),
    );
  for (const worker of workers) {
    worker.on('error', failure.reject);
    worker.on('exit', (status) => status !== 0 && failure.reject(new Error(`a thread ended with status ${status}`)));
    worker.on('message', (report: Report) => {
      if (report.kind === 'progress') waiting.set(worker, `${report.open} open, ${report.waiting}`);
      if (report.kind !== 'seen') return;
      progress();
      try {
        for (const seen of report.seen) ledger.take(seen);
      } catch (error) {
        failure.reject(error);
      }
    });
  }
  const within = <T>(work: Promise<T>): Promise<T> => Promise.race([work, stuck.promise, failure.promise]);

  progress();
  const done = all('done');
  for (const worker of workers) worker.postMessage('start');
  await within(done);
  // The other ends of the last ones may still have to learn of it.
  const settled = all('settled');
  for (const worker of workers) worker.postMessage('settle');
  await within(settled);
  const stopped = all('stopped');
  const exited = Promise.all(workers.map((worker) => new Promise((resolve) => worker.once('exit', resolve))));
  for (const worker of workers) worker.postMessage('stop');
  for (const report of await within(stopped)) assert.deepEqual(report, { kind: 'stopped', channels: 0 });
  await within(exited);

  const unmet = ledger.judgeUnmet();
  const { judged, left, errors } = ledger;
  assert.equal(judged + unmet, CONNECTIONS);
  assertNothingOpened(before);
  t.diagnostic(JSON.stringify({ judged, unmet, left, errors }, null, 2));
  // The test means something only if all of it happened.
  for (const [how, count] of Object.entries(left)) assert.ok(count > CONNECTIONS / 20, `${how}: ${count}`);
});
