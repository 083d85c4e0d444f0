import assert from 'node:assert/strict';
import { cpSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { makeScratchCheckout, run } from './scratch-checkout.ts';

/** A command with what a bundle can get wrong: the addon, a worker thread, CommonJS libraries, at once and on demand. */
const command = `
import { createRequire } from 'node:module';
import { Worker } from 'node:worker_threads';
import protobuf from 'protobufjs/minimal.js';

import { where } from './where.ts';

const bundled = !import.meta.url.endsWith('.ts');
const addon = createRequire(import.meta.url)(bundled ? './culvert.node' : '../native/build/Release/culvert.node');
const { parse } = await import('yaml');
const lazy = await import('protobufjs/minimal.js');
console.log(where(), typeof addon, parse('a: [1]'), typeof protobuf.Reader, typeof lazy.default.Writer);
const entry = new URL(bundled ? './worker.mjs' : './worker/thread.ts', import.meta.url);
new Worker(entry).on('exit', (code) => console.log('worker ended', code));
`;
const worker = `
import { where } from '../where.ts';
console.log(where());
`;
const shared = `
import { isMainThread } from 'node:worker_threads';
export const where = () => (isMainThread ? 'main' : 'worker');
`;

test('the bundle prints what the sources print, in every thread, with nothing beside it', async (t) => {
  const checkout = makeScratchCheckout(t);
  mkdirSync(join(checkout, 'src/worker'));
  writeFileSync(join(checkout, 'src/cli.ts'), command);
  writeFileSync(join(checkout, 'src/worker/thread.ts'), worker);
  writeFileSync(join(checkout, 'src/where.ts'), shared);
  const built = await run(process.execPath, [join(checkout, 'scripts/task.mjs'), 'build']);
  assert.equal(built.status, 0, built.stderr);
  assert.match(built.stdout, /dist\/culvert\.node/);

  const source = await run(process.execPath, [join(checkout, 'src/cli.ts')]);
  assert.match(source.stdout, /^worker\nworker ended 0/m);
  const image = join(checkout, 'image');
  for (const part of ['bin', 'dist']) cpSync(join(checkout, part), join(image, part), { recursive: true });
  const env = { ...process.env, PATH: `${dirname(process.execPath)}:${process.env.PATH}` };
  assert.deepEqual(await run(join(image, 'bin/culvert'), [], env), source);
});
