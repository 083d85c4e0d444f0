import assert from 'node:assert/strict';
import { mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { Kind, ObjectChange, RejectedObject } from '../../../src/control/kinds.ts';
import { watchFolder } from '../../../src/control/sources/folder.ts';
import { fields, metadataOf, text } from '../../../src/kube/object.ts';
import { eventually } from '../../cni/support/eventually.ts';

interface Thing {
  readonly size: string;
}

/** "bad" cannot be read; what never could be read counts as closed. */
const GATE: Kind<Thing> = {
  ...{ kind: 'Gate', group: 'test.example', version: 'v1', plural: 'gates', namespaced: true, optional: true },
  read(object) {
    const size = text(fields(fields(object).spec).size);
    if (size === 'bad') throw new Error(`spec.size of ${text(metadataOf(object).name)}: bad is not a size`);
    return { size };
  },
  standIn: () => ({ size: 'closed' }),
};
const CITY: Kind<Thing> = {
  ...{ kind: 'City', group: '', version: 'v1', plural: 'cities', namespaced: false, optional: false },
  read: (object) => ({ size: text(fields(object).size) }),
};

async function follow(t: TestContext, files: Record<string, string>) {
  const folder = mkdtempSync(join(tmpdir(), 'culvert-objects-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const write = (name: string, content: string) => {
    // Hidden, so that it is not read half written.
    writeFileSync(join(folder, `.${name}`), content);
    renameSync(join(folder, `.${name}`), join(folder, name));
  };
  for (const [name, content] of Object.entries(files)) write(name, content);
  const told: string[] = [];
  const rejected: RejectedObject[] = [];
  const logged: string[] = [];
  const note = (_: string, message: string, given?: object) => void logged.push(`${message} ${JSON.stringify(given)}`);
  const describe = ({ kind, key, before, after }: ObjectChange) =>
    `${kind.kind} ${key}: ${(before as Thing | null)?.size ?? '-'} ${(after as Thing | null)?.size ?? '-'}`;
  const source = await watchFolder({
    ...{ folder, kinds: [GATE, CITY] },
    listener: {
      changed: (changes) => void told.push(...changes.map(describe)),
      rejected: (object) => void rejected.push(object),
    },
    log: { info() {}, warn: note, error: note },
  });
  t.after(() => source.close());
  const hears = (...lines: string[]) => eventually(lines.join(), () => lines.every((line) => told.includes(line)));
  return { folder, write, remove: (name: string) => rmSync(join(folder, name)), source, told, rejected, logged, hears };
}

const gate = (name: string, size: string, namespace?: string) =>
  `apiVersion: test.example/v1\nkind: Gate\nmetadata: {name: ${name}${namespace ? `, namespace: ${namespace}` : ''}}\nspec: {size: "${size}"}\n`;
const city = (name: string, size: string) =>
  JSON.stringify({ apiVersion: 'v1', kind: 'City', metadata: { name }, size });

test('objects are read from documents, lists and JSON', async (t) => {
  const { told } = await follow(t, {
    'gates.yaml': `# gates\n${gate('a', 'small')}---\n---\n${gate('b', 'large', 'shop')}`,
    'list.yml': `apiVersion: v1\nkind: List\nitems:\n- ${city('x', 'one')}\n- ${city('y', 'two')}\n`,
    'z.json': city('z', 'three'),
    'notes.txt': 'nothing',
  });
  assert.deepEqual(told.sort(), [
    'City x: - one',
    'City y: - two',
    'City z: - three',
    'Gate default/a: - small',
    'Gate shop/b: - large',
  ]);
});

test('only what differs is told', async (t) => {
  const { write, remove, told, hears } = await follow(t, {
    'a.yaml': `${gate('a', '1')}---\n${gate('b', '1')}`,
    'c.json': city('c', '1'),
  });
  told.length = 0;
  write('a.yaml', `${gate('a', '2')}---\n${gate('b', '1')}---\n${gate('d', '1')}`);
  await hears('Gate default/a: 1 2', 'Gate default/d: - 1');
  remove('c.json');
  await hears('City c: 1 -');
  write('a.yaml', gate('a', '2'));
  await hears('Gate default/b: 1 -', 'Gate default/d: 1 -');
  assert.equal(told.length, 5);
});

for (const [what, content, problem] of [
  ['half a file', 'apiVersion: test.example/v1\nkind: [', /a\.yaml:2:\d+: /],
  [
    'an object without a name',
    `${gate('b', '1')}---\napiVersion: v1\nkind: City\n`,
    /a\.yaml:6:1: metadata\.name of a City is missing/,
  ],
  ['no object', 'hello', /a\.yaml:1:1: this is no Kubernetes object: it needs apiVersion and kind/],
  ['an alias bomb', aliasBomb(), /a\.yaml:1:\d+: .*alias/i],
] as const) {
  test(`${what} leaves the objects of before in force, and says where it is wrong`, async (t) => {
    const { write, source, told, logged, hears } = await follow(t, {
      'a.yaml': gate('a', '1'),
      'c.json': city('c', '1'),
    });
    write('a.yaml', content);
    await eventually('said', () => source.problems().length === 1);
    assert.match(source.problems()[0]!, problem);
    assert.match(logged.join('\n'), problem);
    write('c.json', city('c', '2'));
    await hears('City c: 1 2');
    assert.ok(!told.includes('Gate default/a: 1 -'));
    write('a.yaml', gate('a', '3'));
    await hears('Gate default/a: 1 3');
    assert.deepEqual(source.problems(), []);
  });
}

test('a rejected object keeps its last good version; one that never had any gets its stand-in', async (t) => {
  const { write, remove, rejected, told, hears } = await follow(t, {
    'a.yaml': gate('a', '1'),
    'b.yaml': `\n${gate('b', 'bad')}`,
  });
  assert.deepEqual(told.sort(), ['Gate default/a: - 1', 'Gate default/b: - closed']);
  assert.match(rejected[0]!.reason, /b\.yaml:2:1: spec\.size of b: bad is not a size/);
  write('a.yaml', gate('a', 'bad'));
  await eventually('rejected', () => rejected.some(({ key }) => key === 'default/a'));
  write('b.yaml', gate('b', '2'));
  await hears('Gate default/b: closed 2');
  remove('a.yaml');
  await hears('Gate default/a: 1 -');
});

test('of two objects of one name the first counts', async (t) => {
  const { remove, source, told, hears } = await follow(t, { 'a.yaml': gate('a', '1'), 'b.yaml': gate('a', '2') });
  assert.deepEqual(told, ['Gate default/a: - 1']);
  assert.match(source.problems()[0]!, /b\.yaml:1:1: Gate default\/a is also at .*a\.yaml:1:1, which counts/);
  remove('a.yaml');
  await hears('Gate default/a: 1 2');
});

test('a kind that is not known is said, so that a typing mistake is seen', async (t) => {
  const { logged } = await follow(t, { 'a.yaml': gate('a', '1').replace('Gate', 'Gaet') });
  assert.match(logged.join(), /a kind that is not used here.*Gaet/);
});

test('a ConfigMap that the kubelet replaces is followed', async (t) => {
  const { folder, hears } = await follow(t, {});
  const swap = async (version: string, size: string) => {
    await mkdir(join(folder, `..${version}`));
    writeFileSync(join(folder, `..${version}`, 'a.yaml'), gate('a', size));
    symlinkSync(`..${version}`, join(folder, '..tmp'));
    renameSync(join(folder, '..tmp'), join(folder, '..data'));
  };
  await swap('v1', '1');
  symlinkSync('..data/a.yaml', join(folder, 'a.yaml'));
  await hears('Gate default/a: - 1');
  await swap('v2', '2');
  await hears('Gate default/a: 1 2');
});

test('at the start, without a version of before, a file that cannot be read is an error', async (t) => {
  await assert.rejects(follow(t, { 'a.yaml': gate('a', '1'), 'b.yaml': 'kind: [' }), {
    code: 'FOLDER_INVALID',
    message: /b\.yaml:1:\d+: /,
  });
});

test('a folder that is not there is an error at the start', async () => {
  await assert.rejects(
    watchFolder({
      ...{ folder: '/nowhere/at/all', kinds: [GATE], listener: { changed() {}, rejected() {} } },
      log: { info() {}, warn() {}, error() {} },
    }),
    { code: 'FOLDER_UNREADABLE', message: /\/nowhere\/at\/all cannot be read/ },
  );
});

function aliasBomb(): string {
  const levels = Array.from({ length: 8 }, (_, level) => {
    const before = level === 0 ? '"lol"' : `*l${level - 1}`;
    return `l${level}: &l${level} [${Array(9).fill(before).join(', ')}]`;
  });
  return `apiVersion: v1\nkind: City\nmetadata: {name: x}\n${levels.join('\n')}\n`;
}
