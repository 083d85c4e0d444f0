import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { identityOf, meshNetwork, startAgent, workload } from '../support/mesh.ts';
import { dial, exchange, listenEcho } from '../support/pod-sockets.ts';

test('an agent serves pods while nobody can read its memory, and prints no key', async (t) => {
  const network = await meshNetwork(t);
  const client = await network.addPod('client');
  const server = await network.addPod('server');
  const keyLog = join(network.folder, 'keys.log');
  writeFileSync(keyLog, '');
  chmodSync(keyLog, 0o644);
  const agent = await startAgent({
    network,
    mesh: { workloads: [client, server].map((pod) => workload(pod)) },
    env: {
      CULVERT_ALLOW_DUMPS: 'false',
      RUST_LOG: 'trace',
      CULVERT_TLS_KEYLOG: keyLog,
      CULVERT_TLS_KEYLOG_ADDRESSES: '192.0.2.0/24',
    },
  });
  assert.match(
    await agent.line('TLS session secrets are written to a file'),
    /\twarn\t.*whoever reads it can decrypt all traffic of this node.*peers="192\.0\.2\.0\/24"/,
  );
  for (const pod of [client, server]) await agent.enrol(pod);
  await listenEcho(server, 8080);
  assert.equal(await exchange(dial(client, server.ipv4, 8080), 'hello'), 'hello');

  assert.ok(!agent.output().includes('core files'));
  // Neither end of that tunnel is among the peers whose secrets were asked for.
  assert.equal(readFileSync(keyLog, 'utf8'), '');
  assert.equal(statSync(keyLog).mode & 0o777, 0o600);
  const dump = (await agent.get('/config_dump')).body;
  assert.ok(dump.includes(identityOf(server)));
  const key = readFileSync(join(agent.caDir, 'ca-key.pem'), 'utf8').split('\n')[1]!;
  assert.equal(statSync(join(agent.caDir, 'ca-key.pem')).mode & 0o777, 0o600);
  for (const text of [dump, agent.output(), (await agent.get('/logging')).body]) {
    assert.doesNotMatch(text, /PRIVATE KEY/);
    assert.ok(!text.includes(key));
  }
});

for (const [what, error, make] of [
  ['in a folder that is gone', 'ENOENT', () => {}],
  ['that is a pipe', 'not a regular file', (path) => spawnSync('mkfifo', [path])],
  ['that is a link', 'not a regular file', (path) => symlinkSync(`${path}-elsewhere`, path)],
] as readonly (readonly [string, string, (path: string) => void])[])
  test(`an agent with a key log ${what} starts without it, and says what to change`, async (t) => {
    const network = await meshNetwork(t);
    const pod = await network.addPod('pod');
    const keyLog = join(network.folder, error === 'ENOENT' ? 'absent/keys.log' : 'keys.log');
    make(keyLog);
    const agent = await startAgent({
      network,
      mesh: { workloads: [workload(pod)] },
      env: { CULVERT_TLS_KEYLOG: keyLog },
    });
    const line = await agent.line('CULVERT_TLS_KEYLOG cannot be written');
    assert.match(line, /\terror\t.*name a regular file/);
    assert.ok(line.includes(error), line);
    await agent.enrol(pod);
    assert.ok(!agent.output().includes('secrets are written'));
  });

test('a debugger of the same user cannot attach unless that is permitted', async (t) => {
  if (process.geteuid!() !== 0 || readFileSync('/proc/self/uid_map', 'utf8').trim().split(/\s+/)[2] !== '4294967295') {
    t.skip('needs root of the machine, to run a second user');
    return;
  }
  // The same user without capabilities, on both sides.
  const script = `
    import { denyDumps } from ${JSON.stringify(new URL('../../native/netns.ts', import.meta.url).href)};
    import { spawnSync } from 'node:child_process';
    const read = () => spawnSync('head', ['-c', '1', \`/proc/\${process.pid}/environ\`]).status;
    const before = read();
    denyDumps();
    console.log(JSON.stringify([before, read()]));`;
  const { stdout, stderr } = spawnSync(
    'setpriv',
    ['--reuid=65534', '--regid=65534', '--clear-groups', '--', process.execPath, '--input-type=module', '-e', script],
    { encoding: 'utf8', env: { ...process.env, SECRET: 'x' } },
  );
  assert.equal(stdout.trim(), '[0,1]', stderr);
});

test('the kernel writes no core file of a process that denies dumps', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'culvert-core-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const netns = JSON.stringify(new URL('../../native/netns.ts', import.meta.url).href);
  /** What the shell says of a process that aborts. */
  const abort = (first: string) => {
    const script = `import * as netns from ${netns}; ${first}; process.abort();`;
    // The shell stays, to tell how the process has ended.
    const command = 'ulimit -c "$(ulimit -H -c)"; "$0" --input-type=module -e "$1" 2>/dev/null; exit';
    const { stderr } = spawnSync('bash', ['-c', command, process.execPath, script], { cwd: folder, encoding: 'utf8' });
    assert.match(stderr, /Aborted/);
    return stderr.includes('core dumped');
  };
  if (!abort('')) {
    t.skip('this machine writes no core files');
    return;
  }
  const written = readdirSync(folder);
  assert.equal(abort('netns.denyDumps()'), false);
  assert.deepEqual(readdirSync(folder), written);
});
