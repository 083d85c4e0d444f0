import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, mkdtempSync, openSync, readFileSync, readSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { createLineWriter } from '../../src/log/line-writer.ts';

const folder = mkdtempSync(join(tmpdir(), 'culvert-log-'));
after(() => rmSync(folder, { recursive: true }));

const module = new URL('../../src/log/line-writer.ts', import.meta.url).href;

test('lines of a turn are handed over when the turn ends', async () => {
  const path = join(folder, 'turn');
  const fd = openSync(path, 'w');
  const writer = createLineWriter({ fd });
  writer.write('one\n');
  writer.write('twö\n');
  assert.equal(readFileSync(path, 'utf8'), '');
  await turn();
  assert.equal(readFileSync(path, 'utf8'), 'one\ntwö\n');
  writer.write('three\n');
  writer.close();
  assert.equal(readFileSync(path, 'utf8'), 'one\ntwö\nthree\n');
  closeSync(fd);
});

test('a process that exits in the middle of a turn hands its lines over', () => {
  const program = `import { createLineWriter } from ${JSON.stringify(module)};
    createLineWriter().write('last words\\n');
    process.exit(3);`;
  const { status, stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8' });
  assert.deepEqual([status, stdout], [3, 'last words\n']);
});

test('a thread that exits in the middle of a turn hands its lines over', async () => {
  const path = join(folder, 'thread');
  const fd = openSync(path, 'w');
  const program = `import(${JSON.stringify(module)}).then(({ createLineWriter }) => {
    createLineWriter({ fd: ${fd} }).write('last words\\n');
    process.exit();
  });`;
  await once(new Worker(program, { eval: true }), 'exit');
  assert.equal(readFileSync(path, 'utf8'), 'last words\n');
  closeSync(fd);
});

test('a process that exits waits for a reader that stalls', () => {
  const path = join(folder, 'stalled');
  assert.equal(spawnSync('mkfifo', [path]).status, 0);
  // More than a pipe takes. The reader is a process of its own, because this one waits.
  const program = `import { spawn } from 'node:child_process';
    import { openSync } from 'node:fs';
    import { createLineWriter } from ${JSON.stringify(module)};
    const [both, end] = ['r+', 'r'].map((mode) => openSync(${JSON.stringify(path)}, mode));
    const writer = createLineWriter({ fd: both });
    for (let at = 0; at < 1000; at++) writer.write(String(at).padEnd(99, 'x') + '\\n');
    if (writer.flush(0)) throw new Error('nothing is left to wait for');
    spawn('sh', ['-c', 'sleep 0.3; exec cat'], { stdio: [end, 'inherit', 'inherit'] });
    process.exit();`;
  const lines = Array.from({ length: 1000 }, (_, at) => `${String(at).padEnd(99, 'x')}\n`).join('');
  // It waits for a second; on a machine that stands still for so long the reader gets another chance.
  let read = '';
  for (let attempt = 0; attempt < 3 && read !== lines; attempt++) {
    const { status, stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
      encoding: 'utf8',
    });
    assert.equal(status, 0, stderr);
    read = stdout;
  }
  assert.equal(read, lines);
});

test('a line longer than any batch is still written, in order', () => {
  const path = join(folder, 'long');
  const fd = openSync(path, 'w');
  const writer = createLineWriter({ fd });
  const long = `${'ü'.repeat(5000)}\n`;
  writer.write('before\n');
  writer.write(long);
  writer.write('after\n');
  writer.close();
  assert.equal(readFileSync(path, 'utf8'), `before\n${long}after\n`);
  closeSync(fd);
});

test('a stalled reader does not block the writer, and gets every line once it reads again', async () => {
  const path = join(folder, 'pipe');
  assert.equal(spawnSync('mkfifo', [path]).status, 0);
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  // Blocking, as an inherited stdout is; the writer must not block on it nevertheless.
  const fd = openSync(path, constants.O_WRONLY);
  const writer = createLineWriter({ fd });
  const line = `${'x'.repeat(199)}\n`;
  for (let at = 0; at < 5000; at++) writer.write(line);
  await turn();
  assert.equal(writer.flush(20), false);
  let read = 0;
  const chunk = Buffer.alloc(65536);
  while (read < 5000 * line.length) {
    try {
      read += readSync(reader, chunk);
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, 'EAGAIN');
      writer.flush(0);
    }
  }
  assert.equal(read, 5000 * line.length);
  assert.equal(writer.flush(0), true);
  writer.close();
  closeSync(reader);
  closeSync(fd);
});

test('lines that a failed descriptor did not take are counted, and nothing is thrown', () => {
  const fd = openSync('/dev/full', 'w');
  let lost = 0;
  const onLost = (lines: number) => {
    lost += lines;
  };
  const writer = createLineWriter({ fd, onLost });
  for (let at = 0; at < 100; at++) writer.write(`${'x'.repeat(99)}\n`);
  writer.close();
  assert.equal(lost, 100);
  closeSync(fd);
});
