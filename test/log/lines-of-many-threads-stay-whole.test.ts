import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';

const THREADS = 4;
const LINES = 10_000;
const program = new URL('writing-threads.ts', import.meta.url).pathname;
const folder = mkdtempSync(join(tmpdir(), 'culvert-log-'));
after(() => rmSync(folder, { recursive: true }));

/** Every line is there once, unbroken, and the lines of a thread are in order. */
function assertWhole(output: string, lines: number, length: number): void {
  const next = new Map<string, number>();
  assert.ok(output.endsWith('\n'));
  for (const line of output.slice(0, -1).split('\n')) {
    const [name, number] = line.split(' ', 2) as [string, string];
    assert.equal(line, `${name} ${number} `.padEnd(length - (Number(number) % 50), 'x'));
    assert.equal(Number(number), next.get(name) ?? 0, `order of ${name}`);
    next.set(name, Number(number) + 1);
  }
  assert.deepEqual(
    [...next].sort(),
    Array.from({ length: THREADS }, (_, at) => [`t${at}`, lines]),
  );
}

const args = (lines: number, length: number, backlog = 6 << 20) =>
  [program, THREADS, lines, length, backlog].map(String);

/** Runs the program with a true pipe as stdout; `pipe` of child_process would be a socket pair. */
function startOnPipe(programArgs: string[]): { reader: ChildProcess } {
  const pipe = join(folder, `pipe-${programArgs.join('-').replaceAll('/', '_')}`);
  assert.equal(spawnSync('mkfifo', [pipe]).status, 0);
  // Read and write, so that opening does not wait for the other side.
  const end = openSync(pipe, 'r+');
  const reader = spawn('cat', [pipe], { stdio: ['ignore', 'pipe', 'inherit'] });
  const writer = spawn(process.execPath, programArgs, { stdio: ['ignore', end, 'inherit'] });
  writer.once('exit', () => closeSync(end));
  return { reader };
}

async function readAll(reader: ChildProcess): Promise<string> {
  reader.stdout!.setEncoding('utf8');
  let output = '';
  for await (const chunk of reader.stdout!) output += chunk as string;
  return output;
}

test('on a pipe', async () => {
  const { reader } = startOnPipe(args(LINES, 400));
  assertWhole(await readAll(reader), LINES, 400);
});

test('on a pipe whose reader stalls until the backlog is full and the threads block', async () => {
  const { reader } = startOnPipe(args(LINES, 300, 64 * 1024));
  await once(reader.stdout!, 'readable');
  await delay(300);
  assertWhole(await readAll(reader), LINES, 300);
});

test('on a socket', async () => {
  const writer = spawn(process.execPath, args(LINES, 400), { stdio: ['ignore', 'pipe', 'inherit'] });
  assertWhole(await readAll(writer), LINES, 400);
});

test('in a file', async () => {
  const path = join(folder, 'log');
  const file = openSync(path, 'a');
  const writer = spawn(process.execPath, args(LINES, 400), { stdio: ['ignore', file, 'inherit'] });
  await once(writer, 'exit');
  closeSync(file);
  assertWhole(readFileSync(path, 'utf8'), LINES, 400);
});

test('lines as long as a line may be', async () => {
  const { reader } = startOnPipe(args(2000, 4095));
  assertWhole(await readAll(reader), 2000, 4095);
});
