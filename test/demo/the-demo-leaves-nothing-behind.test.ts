import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { runCommand } from '../../src/netns/run.ts';
// Also gives this file the rights that a look at the demo's namespaces takes.
import '../support/pods.ts';
import { PATIENCE_MS } from '../support/patience.ts';
import { leftBy, startDemo } from './demo-process.ts';

/** Fails when something of the run is still there after a moment. */
async function assertNothingLeft(pid: number): Promise<void> {
  for (const end = performance.now() + PATIENCE_MS; performance.now() < end && leftBy(pid).length > 0; )
    await delay(50);
  assert.deepEqual(leftBy(pid), []);
}

test('with --once it plays, every check holds, and it tidies up', async () => {
  const demo = startDemo(['--once']);
  assert.equal(await demo.ended, 0, demo.output());
  assert.match(demo.output(), /All \d+ checks held/);
  assert.doesNotMatch(demo.output(), /✘/);
  assert.deepEqual(leftBy(demo.child.pid!), [], 'tidied up before it ended');
});

const ends: [signal: NodeJS.Signals, at: string, code: number][] = [
  ['SIGINT', '1. A node with five pods', 130],
  ['SIGINT', '3. The pods talk', 130],
  ['SIGTERM', '2. The agent', 143],
  ['SIGINT', 'stays up until Ctrl-C', 0],
  ['SIGKILL', '2. The agent', 137],
  ['SIGKILL', 'stays up until Ctrl-C', 137],
];

for (const [signal, at, code] of ends) {
  test(`${signal} at "${at}" leaves nothing`, async () => {
    const demo = startDemo([]);
    await demo.says(at);
    demo.child.kill(signal);
    assert.equal(await demo.ended, code, demo.output());
    assert.doesNotMatch(demo.output(), /removing pods.*(✔|✘|\d\. )/s, 'the story goes on after its end');
    await assertNothingLeft(demo.child.pid!);
  });
}

test('while it stays up, the agent can be asked, and pods can be entered as it says', async () => {
  const demo = startDemo([]);
  await demo.says('sed -i');
  const admin = /localhost:(\d+)\/config_dump\n/.exec(demo.output())![1];
  const dump = (await (await fetch(`http://localhost:${admin}/config_dump`)).json()) as { workloads: unknown[] };
  assert.equal(dump.workloads.length, 5);
  const command = /^ +((?:ip netns exec|nsenter) \S*frontend curl .*)$/m.exec(demo.output())![1]!;
  const { stdout } = await runCommand(command.split(' '));
  assert.match(stdout, /^hello, I am api-[12]$/m);
  demo.child.kill('SIGTERM');
  await demo.ended;
});

test('ports that are taken do not stop it', async (t) => {
  const squatters = [15000, 15020, 15021].map((port) => createServer().listen(port));
  t.after(() => squatters.map((server) => server.close()));
  for (const server of squatters) server.on('error', () => {});
  const demo = startDemo(['--once']);
  assert.equal(await demo.ended, 0, demo.output());
});

test('several that start together leave each other their ports', async () => {
  const demos = [1, 2, 3].map(() => startDemo(['--once']));
  for (const demo of demos) assert.equal(await demo.ended, 0, demo.output());
});

test('an ordinary user can run it', async (t) => {
  const nobody = 65534;
  const asNobody = await runCommand(['setpriv', '--reuid', `${nobody}`, '--clear-groups', 'unshare', '-Urn', 'true']);
  if (asNobody.status !== 0) return t.skip(`no other user can make namespaces from here: ${asNobody.stderr.trim()}`);
  const readable = await runCommand([
    'setpriv',
    '--reuid',
    `${nobody}`,
    '--clear-groups',
    process.execPath,
    import.meta.filename.replace(/[^/]*$/, 'demo-process.ts'),
  ]);
  if (readable.status !== 0) return t.skip('this checkout is not readable for other users');
  const demo = startDemo(['--once'], { uid: nobody, gid: nobody });
  assert.equal(await demo.ended, 0, demo.output());
  assert.match(demo.output(), /All \d+ checks held/);
});

test('what it does not understand it says, and does nothing', async () => {
  const demo = startDemo(['--twice']);
  assert.equal(await demo.ended, 2);
  assert.match(demo.output(), /unknown argument: --twice\n\nusage: culvert demo/);
  assert.equal(await startDemo(['--help']).ended, 0);
});
