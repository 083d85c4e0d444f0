// One set-up at a time per checkout: a lock file that names its holder, so that a holder that died is noticed.
import { linkSync, mkdirSync, readFileSync, renameSync, unlinkSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { SetupError, say } from './report.mjs';

const POLL_MS = 100;
const GIVE_UP_MS = 15 * 60_000;

/**
 * Runs `work` while this process holds the lock file at `path`; waits for a living holder. `work` names each program
 * that it starts, because that program goes on when this process is killed, and then still holds the lock.
 *
 * @template T
 * @param {string} path
 * @param {(holdFor: (pid: number) => void) => Promise<T>} work
 * @returns {Promise<T>}
 */
export async function withLock(path, work) {
  await acquire(path);
  const release = () => unlinkQuietly(path);
  process.on('exit', release);
  try {
    return await work((pid) => {
      const next = `${path}.${process.pid}`;
      writeFileSync(next, `${nameOf(process.pid)}\n${nameOf(pid)}`);
      renameSync(next, path);
    });
  } finally {
    process.off('exit', release);
    release();
  }
}

async function acquire(path) {
  const mine = `${path}.${process.pid}`;
  try {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(mine, nameOf(process.pid));
  } catch (error) {
    throw new SetupError(
      `set-up has work to do, but this user cannot write to the checkout: ${error.message}`,
      'run the command once as the owner of the checkout, or use a clone of your own',
    );
  }
  const deadline = Date.now() + GIVE_UP_MS;
  let announced = false;
  try {
    while (true) {
      // A hard link appears with its content complete, so a lock without a holder's name never exists.
      if (tryLink(mine, path)) return;
      const holder = read(path);
      if (holder === null) continue;
      if (!isAlive(holder)) {
        breakLock(path, holder);
        continue;
      }
      if (!announced) say(`waiting for another set-up of this checkout (process ${holder.split(' ')[0]})`);
      announced = true;
      if (Date.now() > deadline) {
        throw new SetupError(
          `another set-up holds ${path} for more than ${GIVE_UP_MS / 60_000} minutes`,
          `look at process ${holder.split(' ')[0]}; end it, then run the command again`,
        );
      }
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  } finally {
    unlinkQuietly(mine);
  }
}

/** Takes a dead holder's lock away. If a new holder came in between, its lock is put back. */
function breakLock(path, expected) {
  const aside = `${path}.${process.pid}.stale`;
  try {
    renameSync(path, aside);
  } catch {
    return;
  }
  if (read(aside) !== expected) tryLink(aside, path);
  unlinkQuietly(aside);
}

/** A holder is one process per line; it lives as long as one of them does. */
function isAlive(holder) {
  return holder.split('\n').some((name) => nameOf(Number(name.split(' ')[0])) === name);
}

/** Process id and start time (field 22 of /proc/<pid>/stat), which tells it from a later one with the same number. */
function nameOf(pid) {
  const stat = read(`/proc/${pid}/stat`);
  return stat === null ? '' : `${pid} ${stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]}`;
}

function tryLink(from, to) {
  try {
    linkSync(from, to);
    return true;
  } catch (error) {
    if (error.code === 'EEXIST') return false;
    throw error;
  }
}

function read(path) {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null;
  }
}

function unlinkQuietly(path) {
  try {
    unlinkSync(path);
  } catch {
    // Already gone: someone broke the lock, or it was never made.
  }
}
