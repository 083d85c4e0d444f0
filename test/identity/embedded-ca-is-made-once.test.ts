import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { linkSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { openCa } from './ca-folders.ts';
import { scratchFolder } from './scratch.ts';

const FILES = ['ca-cert.pem', 'ca-key.pem', 'cert-chain.pem', 'root-cert.pem'];
const IDENTITY = 'spiffe://cluster.local/ns/default/sa/web';
const run = promisify(execFile);

test('an absent folder is made for its owner only, with the key for its owner only', async (t) => {
  const dir = join(scratchFolder(t), 'deep', 'ca');
  await openCa(dir);
  assert.deepEqual(readdirSync(dir).sort(), FILES);
  assert.equal(statSync(dir).mode & 0o777, 0o700);
  assert.equal(statSync(join(dir, 'ca-key.pem')).mode & 0o777, 0o600);
});

test('an empty folder is filled, and a filled one is left as it is', async (t) => {
  const dir = scratchFolder(t);
  const first = await (await openCa(dir)).sign(IDENTITY);
  const before = FILES.map((name) => readFileSync(join(dir, name), 'utf8'));
  const second = await (await openCa(dir)).sign(IDENTITY);
  assert.deepEqual(
    FILES.map((name) => readFileSync(join(dir, name), 'utf8')),
    before,
  );
  assert.equal(second.rootsPem, first.rootsPem);
  assert.ok(!second.privateKey.equals(first.privateKey));
});

test('other files in the folder do not matter', async (t) => {
  const dir = scratchFolder(t);
  writeFileSync(join(dir, 'README'), '');
  mkdirSync(join(dir, 'lost+found'));
  await openCa(dir);
  assert.deepEqual(readdirSync(dir).sort(), ['README', ...FILES, 'lost+found'].sort());
});

test('many openings of an empty folder at once agree on one root', async (t) => {
  const dir = scratchFolder(t);
  const roots = await Promise.all(
    Array.from({ length: 24 }, async () => (await (await openCa(dir)).sign(IDENTITY)).rootsPem),
  );
  assert.equal(new Set(roots).size, 1);
  assert.deepEqual(readdirSync(dir).sort(), FILES);
});

test('several processes that start at once agree on one root', async (t) => {
  const dir = join(scratchFolder(t), 'ca');
  const script = fileURLToPath(new URL('open-ca.ts', import.meta.url));
  const outputs = await Promise.all(Array.from({ length: 6 }, () => run(process.execPath, [script, dir])));
  const roots = new Set(outputs.map(({ stdout }) => stdout));
  assert.equal(roots.size, 1);
  assert.match([...roots][0]!, /BEGIN CERTIFICATE/);
  assert.deepEqual(readdirSync(dir).sort(), FILES);
});

test('a creation that was cut short is completed by the next opening', async (t) => {
  const whole = scratchFolder(t);
  const { rootsPem } = await (await openCa(whole)).sign(IDENTITY);
  // In the order in which the files are put in place.
  const order = ['ca-key.pem', 'ca-cert.pem', 'cert-chain.pem', 'root-cert.pem'];
  for (let linked = 1; linked <= order.length; linked++) {
    const dir = scratchFolder(t);
    const stage = join(dir, '.new-abcdef');
    mkdirSync(stage);
    for (const name of order) writeFileSync(join(stage, name), readFileSync(join(whole, name)));
    for (const name of order.slice(0, linked)) linkSync(join(stage, name), join(dir, name));
    assert.equal((await (await openCa(dir)).sign(IDENTITY)).rootsPem, rootsPem, `after ${linked} links`);
  }
});

test('a creation that was cut short before it took effect is passed over', async (t) => {
  const dir = scratchFolder(t);
  mkdirSync(join(dir, '.new-abcdef'));
  writeFileSync(join(dir, '.new-abcdef', 'ca-key.pem'), 'half');
  await openCa(dir);
  assert.deepEqual(readdirSync(dir).sort(), ['.new-abcdef', ...FILES]);
});
