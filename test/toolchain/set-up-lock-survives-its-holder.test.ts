import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { makeScratchCheckout, run } from './scratch-checkout.ts';

/** A program that takes the lock, then runs `body`. */
function holder(checkout: string, body: string): string[] {
  const lock = JSON.stringify(join(checkout, '.cache/setup.lock'));
  const script = `
    import { withLock } from ${JSON.stringify(join(checkout, 'scripts/setup/lock.mjs'))};
    import { spawn } from 'node:child_process';
    import { appendFileSync } from 'node:fs';
    await withLock(${lock}, async (holdFor) => { ${body} });`;
  return ['--input-type=module', '-e', script];
}

test('many at once take turns', async (t) => {
  const checkout = makeScratchCheckout(t);
  const log = join(checkout, 'log');
  const body = `appendFileSync(${JSON.stringify(log)}, 'in ' + process.pid + '\\n');
    await new Promise((resolve) => setTimeout(resolve, 20));
    appendFileSync(${JSON.stringify(log)}, 'out ' + process.pid + '\\n');`;
  const outcomes = await Promise.all(Array.from({ length: 6 }, () => run(process.execPath, holder(checkout, body))));
  assert.deepEqual(
    outcomes.map(({ status }) => status),
    [0, 0, 0, 0, 0, 0],
  );
  const lines = readFileSync(log, 'utf8').trimEnd().split('\n');
  assert.equal(lines.length, 12);
  for (let i = 0; i < lines.length; i += 2) assert.equal(lines[i]?.replace('in', 'out'), lines[i + 1]);
});

test('a lock whose holder is gone is taken over, also when its process number is in use again', async (t) => {
  const checkout = makeScratchCheckout(t);
  mkdirSync(join(checkout, '.cache'));
  for (const stale of [`${process.pid} 1`, '4194999 5']) {
    writeFileSync(join(checkout, '.cache/setup.lock'), stale);
    const outcome = await run(process.execPath, holder(checkout, ''));
    assert.equal(outcome.status, 0, outcome.stderr);
    assert.ok(!existsSync(join(checkout, '.cache/setup.lock')));
  }
});

test('a killed holder keeps the lock until the program that it started has ended', async (t) => {
  const checkout = makeScratchCheckout(t);
  const first = spawn(
    process.execPath,
    holder(
      checkout,
      `const child = spawn('sleep', ['60'], { stdio: 'ignore' });
       holdFor(child.pid);
       console.log(child.pid);
       await new Promise(() => setTimeout(() => {}, 60_000));`,
    ),
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const [line] = (await once(first.stdout, 'data')) as [Buffer];
  const sleeper = Number(line.toString());
  first.kill('SIGKILL');
  await once(first, 'exit');

  const second = spawn(process.execPath, holder(checkout, ''), { stdio: ['ignore', 'ignore', 'pipe'] });
  const [message] = (await once(second.stderr, 'data')) as [Buffer];
  assert.match(message.toString(), /waiting for another set-up/);
  process.kill(sleeper, 'SIGKILL');
  const [status] = (await once(second, 'exit')) as [number];
  assert.equal(status, 0);
});
