import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { CulvertError } from '../../src/errors.ts';
import { watchLocalFile } from '../../src/state/watch-local-file.ts';
import { meshOf } from './mesh-builder.ts';

const file = (...names: string[]) =>
  `workloads:\n${names.map((name) => `- {uid: ${name}, namespace: n, workloadIps: [], services: {}}\n`).join('')}`;

/** Follows `path` and hands out what the watcher reports, one report at a time. */
async function follow(context: TestContext, path: string) {
  const mesh = meshOf();
  const reports: (number | CulvertError)[] = [];
  let wake: () => void = () => {};
  const report = (what: number | CulvertError) => {
    reports.push(what);
    wake();
  };
  const watch = await watchLocalFile(path, mesh, { applied: report, rejected: report });
  context.after(() => watch.close());
  return {
    mesh,
    uids: () => [...mesh.workloads()].map(({ uid }) => uid).sort(),
    async next(): Promise<number | CulvertError> {
      while (reports.length === 0) await new Promise<void>((resolve) => (wake = resolve));
      return reports.shift()!;
    },
  };
}

/** Writes a file that is followed in place, and in one go: a file that is empty for a moment is one to complain of. */
const edit = writeFileSync;

async function folder(context: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'culvert-local-file-'));
  context.after(() => rm(path, { recursive: true, force: true }));
  return path;
}

test('an edit is applied as a difference', { timeout: 60_000 }, async (context) => {
  const path = join(await folder(context), 'mesh.yaml');
  await writeFile(path, file('a', 'b'));
  const followed = await follow(context, path);
  assert.equal(await followed.next(), 2);
  const changed: string[] = [];
  followed.mesh.subscribe(
    ({ touched }) => changed.push(...[...touched].filter((key) => key.startsWith('w '))),
    () => true,
  );
  edit(path, file('a', 'c'));
  assert.equal(await followed.next(), 2);
  assert.deepEqual(changed.sort(), ['w b', 'w c']);
  assert.deepEqual(followed.uids(), ['a', 'c']);
});

test('a file replaced by a rename is seen', { timeout: 60_000 }, async (context) => {
  const path = join(await folder(context), 'mesh.yaml');
  await writeFile(path, file('a'));
  const followed = await follow(context, path);
  await followed.next();
  for (const name of ['b', 'c']) {
    await writeFile(`${path}.new`, file(name));
    await rename(`${path}.new`, path);
    await followed.next();
    assert.deepEqual(followed.uids(), [name]);
  }
});

test('a ConfigMap swapped by the kubelet is seen', { timeout: 60_000 }, async (context) => {
  const mount = await folder(context);
  const publish = async (generation: string, text: string) => {
    await mkdir(join(mount, generation));
    await writeFile(join(mount, generation, 'mesh.yaml'), text);
    await symlink(generation, join(mount, '..data_tmp'));
    await rename(join(mount, '..data_tmp'), join(mount, '..data'));
  };
  await publish('..1', file('a'));
  await symlink('..data/mesh.yaml', join(mount, 'mesh.yaml'));
  const followed = await follow(context, join(mount, 'mesh.yaml'));
  await followed.next();
  for (const [before, generation, name] of [
    ['..1', '..2', 'b'],
    ['..2', '..3', 'c'],
  ] as const) {
    await publish(generation, file(name));
    await rm(join(mount, before), { recursive: true });
    await followed.next();
    assert.deepEqual(followed.uids(), [name]);
  }
});

test('an edit of the file behind a link to another directory is seen', { timeout: 60_000 }, async (context) => {
  const [here, there] = [await folder(context), await folder(context)];
  await writeFile(join(there, 'real.yaml'), file('a'));
  await symlink(join(there, 'real.yaml'), join(here, 'mesh.yaml'));
  const followed = await follow(context, join(here, 'mesh.yaml'));
  await followed.next();
  edit(join(there, 'real.yaml'), file('b'));
  await followed.next();
  assert.deepEqual(followed.uids(), ['b']);
});

test('an invalid file is reported and the last good state kept, until it is mended', {
  timeout: 60_000,
}, async (context) => {
  const path = join(await folder(context), 'mesh.yaml');
  await writeFile(path, file('a'));
  const followed = await follow(context, path);
  await followed.next();
  edit(path, `${file('a')}- {uid: b, namespace: 1}`);
  const rejection = (await followed.next()) as CulvertError;
  assert.equal(rejection.code, 'LOCAL_CONFIG_INVALID');
  assert.match(rejection.message, /mesh\.yaml:3:23: workloads\[1\]\.namespace: 1 is given/);
  assert.deepEqual(followed.uids(), ['a']);
  edit(path, file('a', 'b'));
  assert.equal(await followed.next(), 1);
  assert.deepEqual(followed.uids(), ['a', 'b']);
});

test('a file that has become empty is taken for one that is being written', { timeout: 60_000 }, async (context) => {
  const path = join(await folder(context), 'mesh.yaml');
  await writeFile(path, file('a'));
  const followed = await follow(context, path);
  await followed.next();
  for (const [text, says] of [
    ['\n', /mesh\.yaml: the file is empty; to empty the mesh, write \{\}/],
    ['# The mesh of\n# the shop', /the file is empty/],
    ['---\n', /the file is empty/],
    ['--- # The mesh', /the file is empty/],
    ['\uFEFF# The mesh', /the file is empty/],
    ['null', /the file is empty/],
    ['~', /the file is empty/],
    ['workloads: []\n', /the file is empty/],
    ['workloads:', /mesh\.yaml:1:11: workloads: nothing is given; accepted: a list/],
    [`${file('a')}policies:\n`, /mesh\.yaml:3:10: policies: nothing is given; accepted: a list/],
    ['{', /mesh\.yaml:1:/],
  ] as const) {
    await writeFile(`${path}.new`, text);
    await rename(`${path}.new`, path);
    const rejection = (await followed.next()) as CulvertError;
    assert.equal(rejection.code, 'LOCAL_CONFIG_INVALID', text);
    assert.match(rejection.message, says);
    assert.deepEqual(followed.uids(), ['a']);
  }
});

test('a file that says in braces that there is nothing empties the mesh', { timeout: 60_000 }, async (context) => {
  const path = join(await folder(context), 'mesh.yaml');
  await writeFile(path, file('a'));
  const followed = await follow(context, path);
  await followed.next();
  for (const text of ['{}', '--- {}', '# Nothing today.\n---\n{"workloads": [],\n"policies": []}\n']) {
    await writeFile(`${path}.new`, text);
    await rename(`${path}.new`, path);
    assert.equal(await followed.next(), 1);
    assert.deepEqual(followed.uids(), []);
    await writeFile(`${path}.new`, file('a'));
    await rename(`${path}.new`, path);
    assert.equal(await followed.next(), 1);
  }
});

test('a file that goes away leaves the last good state, and is followed again when it comes back', {
  timeout: 60_000,
}, async (context) => {
  const path = join(await folder(context), 'mesh.yaml');
  await writeFile(path, file('a'));
  const followed = await follow(context, path);
  await followed.next();
  await rm(path);
  assert.equal(((await followed.next()) as CulvertError).code, 'LOCAL_CONFIG_UNREADABLE');
  assert.deepEqual(followed.uids(), ['a']);
  edit(path, file('b'));
  await followed.next();
  assert.deepEqual(followed.uids(), ['b']);
});

test('a directory that is replaced is followed again', { timeout: 60_000 }, async (context) => {
  const parent = await folder(context);
  const path = join(parent, 'conf', 'mesh.yaml');
  await mkdir(join(parent, 'conf'));
  await writeFile(path, file('a'));
  const followed = await follow(context, path);
  await followed.next();
  await rename(join(parent, 'conf'), join(parent, 'old'));
  assert.equal(((await followed.next()) as CulvertError).code, 'LOCAL_CONFIG_UNREADABLE');
  await mkdir(join(parent, 'conf'));
  edit(path, file('b'));
  assert.equal(await followed.next(), 2);
  assert.deepEqual(followed.uids(), ['b']);
});

test('other sources are left alone: only what the file itself no longer says is removed', {
  timeout: 60_000,
}, async (context) => {
  const path = join(await folder(context), 'mesh.yaml');
  await writeFile(path, file('a'));
  const followed = await follow(context, path);
  await followed.next();
  const [existing] = [...followed.mesh.workloads()];
  followed.mesh.apply({ workloads: [{ workload: { ...existing!, uid: 'elsewhere' }, services: {} }] });
  edit(path, file('b'));
  await followed.next();
  assert.deepEqual(followed.uids(), ['b', 'elsewhere']);
});

test('a device or a pipe is refused: what is read from it may never end', async () => {
  await assert.rejects(watchLocalFile('/dev/zero', meshOf(), { applied() {}, rejected() {} }), {
    code: 'LOCAL_CONFIG_UNREADABLE',
    message: 'local configuration /dev/zero cannot be read: /dev/zero is not a regular file',
  });
});

test('bytes that are no text in UTF-8 are refused, not read as other characters', async (context) => {
  const path = join(await folder(context), 'mesh.yaml');
  await writeFile(path, Buffer.from(file('café'), 'latin1'));
  await assert.rejects(watchLocalFile(path, meshOf(), { applied() {}, rejected() {} }), {
    code: 'LOCAL_CONFIG_INVALID',
    message: `${path}: this is not text in UTF-8`,
  });
});

test('a comment may hold bytes that are no text in UTF-8', async (context) => {
  const path = join(await folder(context), 'mesh.yaml');
  await writeFile(path, Buffer.from(`# Café\n${file('a')}  # Café`, 'latin1'));
  assert.deepEqual((await follow(context, path)).uids(), ['a']);
});

test('a first load that fails is the error of the call', async (context) => {
  const path = join(await folder(context), 'mesh.yaml');
  const observer = { applied: () => assert.fail(), rejected: () => assert.fail() };
  await assert.rejects(watchLocalFile(path, meshOf(), observer), { code: 'LOCAL_CONFIG_UNREADABLE' });
  const withoutWord = [
    '',
    '---\n# The mesh of the shop\n',
    '--- # The mesh',
    '\uFEFF# The mesh',
    '%YAML 1.2\n---',
    '---\n...',
  ];
  for (const text of ['nonsense', ...withoutWord]) {
    await writeFile(path, text);
    await assert.rejects(watchLocalFile(path, meshOf(), observer), { code: 'LOCAL_CONFIG_INVALID' }, text);
  }
});

test('a file that ends with the line that would begin another document is read', async (context) => {
  const path = join(await folder(context), 'mesh.yaml');
  for (const end of ['---\n', '---', '---\r\n', '--- # end\n', '---\n# end', '---\n...\n']) {
    await writeFile(path, file('a') + end);
    assert.deepEqual((await follow(context, path)).uids(), ['a'], end);
  }
});
