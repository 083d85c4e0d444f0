import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CaFiles } from '../../src/identity/ca-folder.ts';
import { followCa } from '../../src/identity/followed-ca.ts';
import { caFilesOf, createRoot } from '../../src/identity/self-signed-root.ts';

/** Of a CA, its key in bytes. */
async function filesOf(name: string) {
  const files = caFilesOf(await createRoot(name, Date.now()));
  return { ...files, key: Buffer.from(files.key as string) };
}

function isWiped({ key }: { readonly key: Buffer }): boolean {
  return key.every((byte) => byte === 0);
}

function follow(files: CaFiles, read: () => Promise<CaFiles>, changed: (error: Error | null) => void) {
  return followCa({ where: 'here', files, read, now: Date.now, changed, interval: 20 });
}

test('a key that does not belong to the certificate is wiped at every look, and the CA of before stays', async (t) => {
  const [first, other] = [await filesOf('first'), await filesOf('other')];
  const found: { readonly key: Buffer }[] = [];
  let thirdLook = () => {};
  const looked = new Promise<void>((resolve) => {
    thirdLook = resolve;
  });
  const told: (Error | null)[] = [];
  const ca = follow(
    first,
    async () => {
      if (found.length === 3) thirdLook();
      const mixed = { ...first, key: Buffer.from(other.key) };
      found.push(mixed);
      return mixed;
    },
    (error) => told.push(error),
  );
  t.after(() => ca.close());
  const before = ca.material();
  await looked;
  assert.deepEqual(found.slice(0, 3).map(isWiped), [true, true, true]);
  assert.match(told.map(String).join(), /^CulvertError: .*ca-key\.pem does not belong to ca-cert\.pem$/);
  assert.equal(ca.material(), before);
});

test('the key of a CA that is taken is wiped, and so is that of one that cannot be at the start', async () => {
  const [first, other] = [await filesOf('first'), await filesOf('other')];
  const mixed = { ...first, key: Buffer.from(other.key) };
  const never = () => new Promise<CaFiles>(() => {});
  assert.throws(() => follow(mixed, never, () => {}), /ca-key\.pem does not belong to ca-cert\.pem/);
  follow(first, never, () => {}).close();
  assert.deepEqual([mixed, first].map(isWiped), [true, true]);
});
