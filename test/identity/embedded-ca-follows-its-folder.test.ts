import assert from 'node:assert/strict';
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { openEmbeddedCa } from '../../src/identity/embedded-ca.ts';
import { splitCertificates } from '../../src/identity/pem.ts';
import { openCa } from './ca-folders.ts';
import { openssl } from './openssl.ts';
import { scratchFolder } from './scratch.ts';

const IDENTITY = 'spiffe://cluster.local/ns/default/sa/web';
const FILES = ['ca-key.pem', 'ca-cert.pem', 'cert-chain.pem'];

/** A CA and what it tells, one after the other. */
async function followedCa(t: TestContext) {
  const folder = scratchFolder(t);
  const dir = join(folder, 'ca');
  const told: (Error | null)[] = [];
  let waiting = (_: Error | null) => {};
  const ca = await openEmbeddedCa({
    dir,
    ttl: 3_600_000,
    now: Date.now,
    interval: 20,
    changed: (error) => {
      told.push(error);
      waiting(error);
    },
  });
  t.after(() => ca.close());
  const until = (wanted: (error: Error | null) => boolean) =>
    new Promise<Error | null>((resolve) => {
      waiting = (error) => wanted(error) && resolve(error);
    });
  return { folder, dir, ca, told, until };
}

function replace(dir: string, name: string, text: string): void {
  writeFileSync(join(dir, `${name}.new`), text, { mode: 0o600 });
  renameSync(join(dir, `${name}.new`), join(dir, name));
}

test('another root takes over while the old one is still trusted', async (t) => {
  const { folder, dir, ca, until } = await followedCa(t);
  const before = await ca.sign(IDENTITY);
  const next = join(folder, 'next');
  (await openCa(next)).close();
  const changed = until((error) => error === null);
  const roots = readFileSync(join(next, 'root-cert.pem'), 'utf8') + readFileSync(join(dir, 'root-cert.pem'), 'utf8');
  replace(dir, 'root-cert.pem', roots);
  await changed;
  const both = until((error) => error === null);
  for (const name of FILES) replace(dir, name, readFileSync(join(next, name), 'utf8'));
  await both;
  const after = await ca.sign(IDENTITY);
  assert.equal(splitCertificates(after.rootsPem).length, 2);
  writeFileSync(join(folder, 'roots.pem'), after.rootsPem);
  writeFileSync(join(folder, 'next-root.pem'), readFileSync(join(next, 'root-cert.pem')));
  for (const [name, certificate] of Object.entries({ before, after })) {
    writeFileSync(join(folder, `${name}.pem`), certificate.chainPem);
    assert.equal(openssl(folder, 'verify', '-CAfile', 'roots.pem', `${name}.pem`), `${name}.pem: OK\n`);
  }
  openssl(folder, 'verify', '-CAfile', 'next-root.pem', 'after.pem');
});

test('a folder that cannot be used is said once, and the CA of before stays until it can', async (t) => {
  const { dir, ca, told, until } = await followedCa(t);
  const { rootsPem } = await ca.sign(IDENTITY);
  const refused = until((error) => error !== null);
  replace(dir, 'ca-cert.pem', 'nonsense');
  assert.match((await refused)!.message, /ca-cert\.pem has no PEM certificate/);
  assert.equal((await ca.sign(IDENTITY)).rootsPem, rootsPem);
  const gone = until((error) => error !== null);
  renameSync(dir, `${dir}.away`);
  assert.match((await gone)!.message, /ENOENT/);
  assert.equal((await ca.sign(IDENTITY)).rootsPem, rootsPem);
  // Some looks later. One that was under way missed a file, those after it the folder.
  await delay(200);
  const said = told.map((error) => error!.message);
  assert.equal(new Set(said).size, said.length, said.join('\n'));
  assert.equal(existsSync(dir), false, 'nothing is made in its place');
});
