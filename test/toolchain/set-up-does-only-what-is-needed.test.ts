import assert from 'node:assert/strict';
import { appendFileSync, existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { makeScratchCheckout, run } from './scratch-checkout.ts';

test('builds the addon on first use, then is silent until a source changes', async (t) => {
  const checkout = makeScratchCheckout(t);
  const addon = join(checkout, 'native/build/Release/culvert.node');
  const setUp = () => run(process.execPath, [join(checkout, 'scripts/setup.mjs')]);

  const first = await setUp();
  assert.equal(first.status, 0, first.stderr);
  assert.match(first.stderr, /building the addon: done/);
  const built = statSync(addon).mtimeMs;

  const second = await setUp();
  assert.deepEqual(second, { status: 0, stdout: '', stderr: '' });
  assert.equal(statSync(addon).mtimeMs, built);

  appendFileSync(join(checkout, 'native/addon.cc'), 'extern "C" int added_later() { return 1; }\n');
  const third = await setUp();
  assert.match(third.stderr, /building the addon: done/);
  assert.ok(statSync(addon).mtimeMs > built);
});

test('two set-ups at once build once', async (t) => {
  const checkout = makeScratchCheckout(t);
  const setUp = () => run(process.execPath, [join(checkout, 'scripts/setup.mjs')]);
  const outcomes = await Promise.all([setUp(), setUp()]);
  assert.deepEqual(
    outcomes.map(({ status }) => status),
    [0, 0],
  );
  const builds = outcomes.filter(({ stderr }) => stderr.includes('building the addon'));
  assert.equal(builds.length, 1, outcomes.map(({ stderr }) => stderr).join('\n'));
  assert.ok(!existsSync(join(checkout, '.cache/setup.lock')));
});

test('builds against the pinned headers even when npm is configured for others', async (t) => {
  const checkout = makeScratchCheckout(t);
  const env = { ...process.env, npm_config_nodedir: '/nonexistent', npm_config_target: '18.0.0' };
  const outcome = await run(process.execPath, [join(checkout, 'scripts/setup.mjs')], env);
  assert.equal(outcome.status, 0, outcome.stderr);
});
