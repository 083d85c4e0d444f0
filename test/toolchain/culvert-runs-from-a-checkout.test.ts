import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
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

test('a signal sent to bin/culvert reaches the agent itself', async (t) => {
  const checkout = makeScratchCheckout(t);
  const agent = spawn(join(checkout, 'bin/culvert'), ['agent'], { stdio: ['ignore', 'pipe', 'ignore'] });
  await once(agent.stdout, 'data');
  agent.kill('SIGTERM');
  const [status] = (await once(agent, 'exit')) as [number];
  assert.equal(status, 7);
});
