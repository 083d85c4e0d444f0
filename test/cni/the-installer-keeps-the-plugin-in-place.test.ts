import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { chain, isChained, PLUGIN_TYPE, primaryConf, unchain } from '../../src/cni/install/conflist.ts';
import { startInstaller } from '../../src/cni/install/installer.ts';
import { eventually } from './support/eventually.ts';

const entry = { type: PLUGIN_TYPE, name: PLUGIN_TYPE, socket: '/run/x/cni.sock', state: '/lib/x/cni-state' } as const;
const LIST = '{ "cniVersion":"1.0.0", "name":"net",\n "plugins":[{"type":"bridge"},{"type":"portmap"}], "extra":true }';
const SINGLE = '{"cniVersion":"0.4.0","name":"net","type":"bridge","ipam":{}}';

function node(t: TestContext, files: Record<string, string>, options: { confName?: string; chained?: boolean } = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'culvert-install-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const [bin, conf, state] = ['bin', 'conf', 'state'].map((name) => join(folder, name)) as [string, string, string];
  for (const path of [bin, conf]) mkdirSync(path);
  for (const [name, content] of Object.entries(files)) writeFileSync(join(conf, name), content, { mode: 0o640 });
  const plugin = join(folder, 'plugin');
  writeFileSync(plugin, 'version 1');
  const errors: string[] = [];
  const start = (chained = options.chained ?? true) => {
    const installer = startInstaller({
      ...{ binDir: bin, confDir: conf, confName: options.confName ?? null, chained },
      ...{ groupRead: false, stateDir: state, plugin, entry, checkMs: 500 },
      log: { info() {}, warn() {}, error: (_, message, fields) => void errors.push(`${message}: ${fields?.error}`) },
    });
    t.after(() => installer.close());
    return installer;
  };
  const read = (name: string) => readFileSync(join(conf, name), 'utf8');
  const typesOf = (name: string) => (JSON.parse(read(name)).plugins as { type: string }[]).map(({ type }) => type);
  return { bin, conf, plugin, start, read, typesOf, errors, target: join(bin, PLUGIN_TYPE) };
}

test('the plugin becomes the last of the first chain, and an uninstall gives back the very same file', (t) => {
  const { start, conf, read, typesOf, target } = node(t, { '10-net.conflist': LIST, '20-other.conflist': LIST });
  const installer = start();
  assert.ok(installer.isInstalled());
  assert.deepEqual(typesOf('10-net.conflist'), ['bridge', 'portmap', PLUGIN_TYPE]);
  assert.equal(JSON.parse(read('10-net.conflist')).extra, true);
  assert.equal(statSync(join(conf, '10-net.conflist')).mode & 0o777, 0o640);
  assert.equal(read('20-other.conflist'), LIST);
  assert.equal(readFileSync(target, 'utf8'), 'version 1');
  assert.equal(statSync(target).mode & 0o777, 0o755);
  installer.uninstall();
  assert.equal(read('10-net.conflist'), LIST);
  assert.ok(!existsSync(target));
  assert.deepEqual(readdirSync(conf).sort(), ['10-net.conflist', '20-other.conflist']);
});

test('what is no regular file is no configuration', (t) => {
  const { start, conf, typesOf, errors } = node(t, { '10-net.conflist': LIST });
  mkdirSync(join(conf, 'multus.d'));
  mkdirSync(join(conf, '05-folder.conf'));
  execFileSync('mkfifo', [join(conf, '06-pipe.conflist')]);
  const installer = start();
  assert.ok(installer.isInstalled(), errors.join());
  assert.deepEqual(typesOf('10-net.conflist'), ['bridge', 'portmap', PLUGIN_TYPE]);
  installer.uninstall();
  assert.deepEqual(errors, []);
});

test('a configuration of one plugin becomes a list, and the other way round', (t) => {
  const { start, conf, read, typesOf } = node(t, { '10-net.conf': SINGLE });
  const installer = start();
  assert.deepEqual(readdirSync(conf), ['10-net.conflist']);
  assert.deepEqual(typesOf('10-net.conflist'), ['bridge', PLUGIN_TYPE]);
  assert.equal(JSON.parse(read('10-net.conflist')).cniVersion, '0.4.0');
  installer.uninstall();
  assert.deepEqual(readdirSync(conf), ['10-net.conf']);
  assert.equal(read('10-net.conf'), SINGLE);
});

test('an upgrade finds what is there, and an uninstall after it still knows the original', (t) => {
  const { start, read, plugin, target } = node(t, { '10-net.conflist': LIST });
  start().close();
  writeFileSync(plugin, 'version 2');
  const installer = start();
  assert.equal(readFileSync(target, 'utf8'), 'version 2');
  installer.uninstall();
  assert.equal(read('10-net.conflist'), LIST);
});

test('whoever changes the configuration or the executable finds them repaired', async (t) => {
  const { start, conf, typesOf, target, read } = node(t, { '10-net.conflist': LIST });
  const installer = start();
  const changed = LIST.replace('portmap', 'bandwidth');
  writeFileSync(join(conf, '10-net.conflist'), changed);
  await eventually('chained again', () => typesOf('10-net.conflist').join() === `bridge,bandwidth,${PLUGIN_TYPE}`);
  unlinkSync(target);
  await eventually('copied again', () => existsSync(target));
  chmodSync(target, 0o644);
  await eventually('executable again', () => (statSync(target).mode & 0o777) === 0o755);
  writeFileSync(join(conf, '05-first.conflist'), LIST);
  await eventually('in the new first one', () => typesOf('05-first.conflist').includes(PLUGIN_TYPE));
  installer.uninstall();
  assert.equal(read('10-net.conflist').includes(PLUGIN_TYPE), false);
  assert.equal(read('05-first.conflist'), LIST);
});

test('without a configuration it waits, and says so once', async (t) => {
  const { start, conf, typesOf, errors } = node(t, {
    'broken.conflist': '{',
    'empty.conflist': '{"plugins":[]}',
    'notes.txt': 'x',
  });
  const installer = start();
  assert.ok(!installer.isInstalled());
  writeFileSync(join(conf, 'late.conflist'), LIST);
  await eventually('installed', () => installer.isInstalled());
  assert.ok(typesOf('late.conflist').includes(PLUGIN_TYPE));
  assert.equal(errors.length, 1);
  assert.match(errors[0]!, /no CNI configuration .* yet/);
});

test('a configuration asked for by name is taken, under either ending', (t) => {
  const { start, read, conf } = node(
    t,
    { '10-net.conflist': LIST, '20-mine.conf': SINGLE },
    { confName: '20-mine.conflist' },
  );
  start();
  assert.equal(read('10-net.conflist'), LIST);
  assert.deepEqual(readdirSync(conf), ['10-net.conflist', '20-mine.conflist']);
});

test('for a meta plugin it has a file of its own', (t) => {
  const { start, read, conf } = node(t, { '10-net.conflist': LIST }, { chained: false });
  const installer = start();
  assert.equal(JSON.parse(read('YYY-culvert-cni.conf')).type, PLUGIN_TYPE);
  assert.equal(read('10-net.conflist'), LIST);
  installer.uninstall();
  assert.deepEqual(readdirSync(conf), ['10-net.conflist']);
});

test('an uninstall also takes the plugin out of the chain that an earlier version put it into', (t) => {
  const { start, read, conf } = node(t, { '10-net.conflist': LIST });
  start(true).close();
  const installer = start(false);
  installer.uninstall();
  assert.deepEqual(readdirSync(conf), ['10-net.conflist']);
  assert.equal(read('10-net.conflist'), LIST);
});

test('an edit by somebody else survives the uninstall', (t) => {
  const { start, conf, read } = node(t, { '10-net.conflist': LIST });
  const installer = start();
  const edited = { ...JSON.parse(read('10-net.conflist')), disableCheck: true };
  writeFileSync(join(conf, '10-net.conflist'), JSON.stringify(edited));
  installer.uninstall();
  const { plugins, disableCheck } = JSON.parse(read('10-net.conflist'));
  assert.deepEqual([plugins.length, disableCheck], [2, true]);
});

test('whatever is in the folder, the edit is right or there is none', () => {
  const plugin = fc.record({ type: fc.constantFrom('bridge', 'portmap', PLUGIN_TYPE), a: fc.jsonValue() });
  const list = fc.record({ name: fc.string(), plugins: fc.array(plugin, { maxLength: 4 }) });
  const content = fc.oneof(
    list.map((value) => JSON.stringify(value)),
    fc.json(),
    fc.string(),
    plugin.map((value) => JSON.stringify(value)),
  );
  fc.assert(
    fc.property(content, fc.constantFrom('a.conf', 'a.conflist', 'a.json'), (content, name) => {
      const file = primaryConf([{ name, content }]);
      if (file === null) return;
      const chained = chain(file, entry);
      assert.ok(isChained(chained, entry), chained.content);
      assert.deepEqual(chain(chained, entry), chained);
      const removed = unchain(chained)!;
      assert.ok(!removed.content.includes(`"${PLUGIN_TYPE}"`) || content.includes(PLUGIN_TYPE));
      assert.equal(unchain(removed), null);
    }),
  );
});
