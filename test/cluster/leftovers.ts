/** What a run that was killed has left of its cluster, processes of its own among it. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Where ../shared/kube keeps what it starts. */
export const state = process.env.KUBE_STATE || join(process.env.TMPDIR || '/tmp', 'culvert-kube');

/** Says which process runs tests on the cluster. */
const owner = join(state, 'tests.pid');

/** From now on the cluster is this process's. */
export function takeOver(): void {
  mkdirSync(state, { recursive: true });
  writeFileSync(owner, `${process.pid}`);
}

/** Nobody has taken it over since. */
export function isOurs(): boolean {
  return existsSync(owner) && readFileSync(owner, 'utf8') === `${process.pid}`;
}

/** Stops whatever is left and removes it. @param down the program that does so for a cluster in order @throws what remains */
export function removeLeftovers(down: string): void {
  if (!existsSync(state)) return;
  process.stderr.write(`removing the cluster that an earlier run has left in ${state}\n`);
  // Tests whose npm was killed go on by themselves.
  const tests = pidIn(owner);
  if (tests !== null && tests !== process.pid && commandOf(tests).includes('test/cluster/')) kill(tests, 'SIGKILL');
  for (const file of readdirSync(state).filter((name) => name.endsWith('.pid'))) {
    const path = join(state, file);
    const pid = pidIn(path);
    const program = file.replace(/^node\d+-/, '').replace(/\.pid$/, '');
    // The one that keeps a node's mounts does nothing else.
    const isRunning = pid !== null && commandOf(pid).includes(program === 'mounts' ? 'sleep' : program);
    // A test may have stopped it for a while. A process that has the number of one that is gone must not be stopped for it.
    if (isRunning) kill(pid, 'SIGCONT');
    else rmSync(path, { force: true });
  }
  endPodsWithoutRuntime();
  spawnSync(down, { stdio: 'inherit' });
  if (existsSync(state)) throw new Error(`${down} leaves ${state}: unmount and remove it`);
}

/** Containers outlive their containerd, and those in the machine's own network keep its ports. */
function endPodsWithoutRuntime(): void {
  const processes = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
  for (const node of readdirSync(state).filter((name) => /^node\d+$/.test(name))) {
    if (existsSync(join(state, `${node}-containerd.pid`))) continue;
    const isShim = (pid: number) => {
      const command = commandOf(pid);
      return command.includes('containerd-shim') && command.includes(`${join(state, node)}/`);
    };
    const shims = new Set(processes.filter(isShim));
    for (const pid of processes) if (shims.has(parentOf(pid))) kill(pid, 'SIGKILL');
  }
}

function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended.
  }
}

function pidIn(file: string): number | null {
  const pid = existsSync(file) ? Number(readFileSync(file, 'utf8')) : 0;
  return pid > 0 ? pid : null;
}

/** Empty for one that has ended, also when nobody has asked for its status yet. */
function commandOf(pid: number): string {
  return ofProcess(pid, 'cmdline').replaceAll('\0', ' ');
}

function parentOf(pid: number): number {
  const stat = ofProcess(pid, 'stat');
  return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
}

function ofProcess(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return '';
  }
}
