import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { toolPath } from '../../src/netns/run.ts';
import { PATIENCE_MS } from '../support/patience.ts';

test('a program whose parent dies before the kernel knows that it belongs to it does not begin', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'culvert-owned-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const [pidFile, begun] = [join(folder, 'pid'), join(folder, 'begun')];
  // Gets to its work when the one who started it is gone.
  writeFileSync(
    join(folder, 'setpriv'),
    `#!/bin/sh
echo $$ > ${pidFile}.new && mv ${pidFile}.new ${pidFile}
while [ -d /proc/$PPID ]; do sleep 0.05; done
PATH='${toolPath()}'
exec setpriv "$@"
`,
    { mode: 0o755 },
  );
  const processes = new URL('../../src/demo/processes.ts', import.meta.url).href;
  const script = `
    import { createOwnedProcesses } from ${JSON.stringify(processes)};
    createOwnedProcesses().start(['sh', '-c', 'echo > ${begun}; exec sleep 600']);
    setInterval(() => {}, 1000);`;
  const parent = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...process.env, PATH: `${folder}:${toolPath()}` },
  });
  t.after(() => parent.kill('SIGKILL'));
  await until(() => existsSync(pidFile), 'it was not started');
  const pid = Number(readFileSync(pidFile, 'utf8'));
  const isThere = () => existsSync(`/proc/${pid}`);
  t.after(() => isThere() && process.kill(pid, 'SIGKILL'));
  parent.kill('SIGKILL');
  await until(() => !isThere() || existsSync(begun), 'it neither ended nor began');
  assert.ok(!existsSync(begun), 'it began without its parent');
});

async function until(holds: () => boolean, otherwise: string): Promise<void> {
  for (const end = performance.now() + PATIENCE_MS; !holds(); await delay(20)) {
    assert.ok(performance.now() < end, otherwise);
  }
}
