import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { makeScratchCheckout, run } from './scratch-checkout.ts';

test('bin/culvert sets up, passes arguments and the exit status on, and works through a link', async (t) => {
  const checkout = makeScratchCheckout(t);
  const link = join(checkout, 'elsewhere');
  symlinkSync('bin/culvert', link);
  const outcome = await run(link, ['proxy', 'two words', ''], { ...process.env, CLI_EXIT: '3' });
  assert.equal(outcome.stdout, '["proxy","two words",""]\n');
  assert.match(outcome.stderr, /building the addon: done/);
  assert.equal(outcome.status, 3);
});

test('a signal sent to bin/culvert reaches the agent itself, and none opens it to a debugger', async (t) => {
  const checkout = makeScratchCheckout(t);
  const agent = spawn(join(checkout, 'bin/culvert'), ['agent'], { stdio: ['ignore', 'pipe', 'pipe'] });
  let errors = '';
  await once(agent.stdout, 'data');
  agent.stderr.setEncoding('utf8').on('data', (text: string) => {
    errors += text;
  });
  // Node would open a port to a debugger.
  agent.kill('SIGUSR1');
  await delay(300);
  agent.kill('SIGTERM');
  const [status] = (await once(agent, 'exit')) as [number];
  assert.equal(status, 7);
  assert.doesNotMatch(errors, /Debugger/);
});
