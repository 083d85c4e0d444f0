import assert from 'node:assert/strict';
import { cpSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { makeScratchCheckout, run } from './scratch-checkout.ts';

/** A command with what a bundle can get wrong: the addon, a worker thread, CommonJS libraries, at once and on demand. */
const command = `
import { createRequire } from 'node:module';
import { isMainThread, Worker } from 'node:worker_threads';
import pino from 'pino';
import { Registry } from 'prom-client';

const bundled = !import.meta.url.endsWith('.ts');
const addon = createRequire(import.meta.url)(bundled ? './culvert.node' : '../native/build/Release/culvert.node');
if (isMainThread) {
  const { parse } = await import('yaml');
  const protobuf = await import('protobufjs/minimal.js');
  console.log('main', typeof addon, parse('a: [1]'), new Registry().contentType, typeof protobuf.default.Reader);
  pino({ base: null, timestamp: false }).info('logged');
  new Worker(new URL(import.meta.url)).on('exit', (code) => console.log('worker ended', code));
} else {
  console.log('worker', typeof addon);
}
`;

test('the bundle prints what the sources print, in every thread, with nothing beside it', async (t) => {
  const checkout = makeScratchCheckout(t);
  writeFileSync(join(checkout, 'src/cli.ts'), command);
  const built = await run(process.execPath, [join(checkout, 'scripts/task.mjs'), 'build']);
  assert.equal(built.status, 0, built.stderr);
  assert.match(built.stdout, /dist\/culvert\.node/);

  const source = await run(process.execPath, [join(checkout, 'src/cli.ts')]);
  assert.match(source.stdout, /worker object\nworker ended 0/);
  const image = join(checkout, 'image');
  for (const part of ['bin', 'dist']) cpSync(join(checkout, part), join(image, part), { recursive: true });
  const env = { ...process.env, PATH: `${dirname(process.execPath)}:${process.env.PATH}` };
  assert.deepEqual(await run(join(image, 'bin/culvert'), [], env), source);
});
