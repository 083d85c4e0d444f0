/**
 * Interoperation with HTTP/2 of Go's standard library, both ways: code of its own, and flow control that returns credit,
 * also that of the connection, only for what has been read.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline, Readable } from 'node:stream';
import { after, before, type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { createOwnedProcesses } from '../../../src/demo/processes.ts';
import {
  application,
  dial,
  LOCALHOST,
  type PlaneUnderTest,
  patiently,
  planeUnderTest,
  startPod,
  tunnelTo,
  until,
} from '../../worker/support/plane-under-test.ts';
import { certificateFiles } from './support/certificate-files.ts';

const processes = createOwnedProcesses();
const run = promisify(execFile);
const source = fileURLToPath(new URL('support/go-peer/main.go', import.meta.url));
const options = { skip: spawnSync('go', ['version']).error !== undefined && 'not installed: go' };
const folder = mkdtempSync(join(tmpdir(), 'culvert-go-'));
const peer = join(folder, 'peer');

before(async () => {
  // Without a folder to build in: nothing is downloaded, and no module is looked for.
  if (!options.skip) await run('go', ['build', '-o', peer, source], { env: { ...process.env, GO111MODULE: 'off' } });
});
after(() => rmSync(folder, { recursive: true }));

async function credentials(t: TestContext, rig: PlaneUnderTest): Promise<Record<'KEY' | 'CHAIN' | 'ROOTS', string>> {
  const { key, chain, roots } = await certificateFiles(t, rig);
  return { KEY: key, CHAIN: chain, ROOTS: roots };
}

test('a client in Go gets its bytes back', options, async (t) => {
  const rig = await planeUnderTest(t);
  const app = await application(t, { allowHalfOpen: true });
  app.server.on('connection', (socket) => socket.pipe(socket));
  rig.app = app.port;
  startPod(rig);
  const env = { ...process.env, ...(await credentials(t, rig)) };
  const target = [`${LOCALHOST}:${rig.ports.hbone}`, `${LOCALHOST}:${app.port}`];
  const { stdout } = await run(peer, ['client', ...target, '20', '3000000'], { env, timeout: 60_000 });
  assert.equal(stdout, 'whole\n');
  assert.equal(app.sockets.length, 20);
  await until('streams stay open', () => rig.plane.snapshot()[0]!.connections.length === 0);
});

test('a client in Go whose unread downloads use up its tunnel is brought to open another one', options, async (t) => {
  const rig = await planeUnderTest(t);
  const app = await application(t);
  app.server.on('connection', (socket) => pipeline(endless(), socket, () => {}));
  rig.app = app.port;
  startPod(rig);
  const env = { ...process.env, ...(await credentials(t, rig)) };
  const target = [`${LOCALHOST}:${rig.ports.hbone}`, `${LOCALHOST}:${app.port}`];
  const { stdout } = await run(peer, ['downloads', ...target, '5'], { env, timeout: 60_000 });
  assert.equal(stdout, 'came over connection 2\n');
});

function endless(): Readable {
  const bytes = randomBytes(65_536);
  return new Readable({
    read() {
      this.push(bytes);
    },
  });
}

/** Tunnels of the pod end at a server in Go that never reads the first `stalled` streams. Returns what it says. */
async function serverInGo(t: TestContext, rig: PlaneUnderTest, stalled: number): Promise<() => string[]> {
  const child: ChildProcess = processes.start([peer, 'server', String(stalled)], { env: await credentials(t, rig) });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk: Buffer) => (output += chunk));
  t.after(async () => {
    child.kill('SIGKILL');
    await once(child, 'exit');
  });
  await until('the server does not listen', () => /listens on \d+\n/.test(output));
  const plan = tunnelTo({ ...rig.ports, hbone: Number(/listens on (\d+)/.exec(output)![1]) }, 80);
  rig.answer = () => plan;
  startPod(rig);
  return () => output.match(/CONNECT .*/g) ?? [];
}

/** Sends and expects the same back. */
async function echo(t: TestContext, rig: PlaneUnderTest, length: number): Promise<void> {
  const { socket } = await dial(t, rig.ports.outbound);
  const sent = randomBytes(length);
  socket.end(sent);
  const received: Buffer[] = [];
  const all = async () => {
    for await (const chunk of socket) received.push(chunk as Buffer);
  };
  await patiently('bytes are missing', all());
  assert.ok(Buffer.concat(received).equals(sent), 'other bytes came back');
}

/** Seconds pass for a pod only when told to: a stream that is held back is let use more of the window after two. */
function stopTicks(t: TestContext): void {
  t.mock.timers.enable({ apis: ['setInterval'] });
}

/**
 * Sends more than every buffer on the way takes to a stream that is not read; resolves when nothing moves any more, and
 * fails unless as much of the shared window is left then.
 */
async function stall(t: TestContext, rig: PlaneUnderTest, said: () => string[], left: number): Promise<void> {
  const streams = said().length;
  const { socket } = await dial(t, rig.ports.outbound);
  socket.on('error', () => {});
  socket.write(randomBytes(32 << 20));
  const sendWindows = () => [...rig.plane.pool.connections()].map((tunnel) => tunnel.sendWindow);
  await until('it is not sent', () => said().length > streams && sendWindows().every((window) => window === left));
  for (let round = 0; round < 20; round++) {
    await new Promise((resolve) => setTimeout(resolve, 10));
    assert.deepEqual(sendWindows(), [left]);
  }
}

test('a server in Go echoes what tunnels bring', options, async (t) => {
  const rig = await planeUnderTest(t);
  const said = await serverInGo(t, rig, 0);
  await Promise.all(Array.from({ length: 20 }, (_, i) => echo(t, rig, i * 100_000 + 1)));
  assert.equal(new Set(said().map((line) => line.split(' from ')[1])).size, 1, 'they share a tunnel');
});

test(
  'RFC 9113 §6.9.1: a stream that a server in Go never reads leaves its siblings half of the shared window',
  options,
  async (t) => {
    stopTicks(t);
    const rig = await planeUnderTest(t);
    const said = await serverInGo(t, rig, 1);
    // Of 1 MB, which is also what a single stream may send.
    await stall(t, rig, said, 1 << 19);
    for (const length of [1, 1000, 10_000_000]) await echo(t, rig, length);
    assert.equal(new Set(said().map((line) => line.split(' from ')[1])).size, 1, 'they share a tunnel');
  },
);

test(
  'new connections take another tunnel when stalled streams leave nothing of the shared window',
  options,
  async (t) => {
    stopTicks(t);
    const rig = await planeUnderTest(t);
    const said = await serverInGo(t, rig, 3);
    for (const left of [1 << 19, 0, 0]) await stall(t, rig, said, left);
    await until('it is taken for usable', () => {
      t.mock.timers.tick(500);
      return [...rig.plane.pool.connections()].every(({ room }) => room === 0);
    });
    await echo(t, rig, 3_000_000);
    const tunnels = said().map((line) => line.split(' from ')[1]);
    assert.equal(new Set(tunnels.slice(0, 3)).size, 1);
    assert.notEqual(tunnels[3], tunnels[0]);
  },
);
