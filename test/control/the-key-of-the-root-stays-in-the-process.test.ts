import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { eventually } from '../cni/support/eventually.ts';
import { scratchFolder } from '../identity/scratch.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const NOBODY = 65_534;

test('nobody reads the memory of the control plane, and its log shows no key', async (t) => {
  const isRoot = process.geteuid!() === 0;
  if (!isRoot || readFileSync('/proc/self/uid_map', 'utf8').trim().split(/\s+/)[2] !== '4294967295') {
    t.skip('needs root of the machine, to run a second user');
    return;
  }
  const folder = scratchFolder(t);
  chmodSync(folder, 0o755);
  for (const name of ['objects', 'ca']) {
    mkdirSync(join(folder, name));
    chownSync(join(folder, name), NOBODY, NOBODY);
  }
  const child = spawn(process.execPath, ['src/cli.ts', 'control'], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'pipe'],
    ...{ uid: NOBODY, gid: NOBODY },
    env: {
      PATH: process.env.PATH,
      CULVERT_CONTROL_OBJECTS_DIR: join(folder, 'objects'),
      ROOT_CA_DIR: join(folder, 'ca'),
      RUST_LOG: 'trace',
      ...{ CULVERT_SECURE_GRPC_PORT: '0', CULVERT_READINESS_PORT: '0', MONITORING_PORT: '0', CULVERT_ADMIN_PORT: '0' },
    },
  });
  const ended = new Promise((resolve) => child.once('close', resolve));
  t.after(() => child.kill('SIGKILL'));
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  }
  await eventually('it is there', () => {
    if (child.exitCode !== null) throw new Error(output);
    return output.includes('culvert control plane started');
  });
  const keyFile = join(folder, 'ca/ca-key.pem');
  assert.equal(statSync(keyFile).mode & 0o777, 0o600);
  assert.equal(statSync(keyFile).uid, NOBODY);
  // What a process that must not be looked into has there is root's.
  assert.equal(statSync(`/proc/${child.pid}/mem`).uid, 0);
  child.kill('SIGTERM');
  assert.equal(await ended, 0);
  assert.doesNotMatch(output, /PRIVATE KEY/);
  assert.ok(!output.includes(readFileSync(keyFile, 'utf8').split('\n')[1]!));
});
