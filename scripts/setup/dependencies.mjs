// node_modules as package-lock.json says, with the pinned Node in it.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cache, modules, nodePackage, pinnedNode, root } from './layout.mjs';
import { runStep, SetupError } from './report.mjs';

const lockFile = join(root, 'package-lock.json');
const stampFile = join(modules, '.culvert-lock-hash');

/** True when nothing has to be installed. Cheap: one small file and one hash. */
export function dependenciesAreCurrent() {
  if (!existsSync(pinnedNode)) return false;
  const hash = lockHash();
  if (readOrEmpty(stampFile) === hash) return true;
  if (!matchesLock()) return false;
  writeStamp(hash);
  return true;
}

/**
 * Installs exactly what package-lock.json says.
 *
 * @param {(pid: number) => void} [holdFor] told each program that this starts
 */
export async function installDependencies(holdFor) {
  if (!['x64', 'arm64'].includes(process.arch) || process.platform !== 'linux') {
    throw new SetupError(
      `culvert runs on Linux, x64 or arm64; this is ${process.platform} ${process.arch}`,
      'use a Linux machine of one of these architectures',
    );
  }
  await runStep(
    {
      title: 'installing dependencies (npm ci)',
      command: 'npm',
      // No dependency needs an install script to work; not running any keeps their code out of the set-up.
      args: ['ci', '--include=dev', '--include=optional', '--ignore-scripts', '--no-audit', '--no-fund'],
      cwd: root,
      env: npmEnvironment(),
      log: join(cache, 'npm-ci.log'),
      remedy: 'check that npm works and reaches its registry (npm ping), then run the command again',
    },
    holdFor,
  );
  verifyPinnedNode();
  writeStamp(lockHash());
}

/** An install by hand (npm ci, npm install) counts when npm's own record of it agrees with the lock file. */
function matchesLock() {
  const record = readOrEmpty(join(modules, '.package-lock.json'));
  if (record === '') return false;
  const installed = JSON.parse(record).packages;
  const wanted = JSON.parse(readFileSync(lockFile, 'utf8')).packages;
  for (const [path, entry] of Object.entries(wanted)) {
    if (path === '') continue;
    const actual = installed[path];
    if (actual ? actual.version !== entry.version || actual.integrity !== entry.integrity : !isOptional(entry)) {
      return false;
    }
  }
  return Object.keys(installed).every((path) => path in wanted);
}

function isOptional(entry) {
  return entry.optional === true || entry.devOptional === true;
}

function verifyPinnedNode() {
  if (!existsSync(pinnedNode)) {
    throw new SetupError(
      `npm did not install ${nodePackage}, which carries the pinned Node`,
      'check that npm is not told to leave optional packages out (npm config get omit), then run the command again',
    );
  }
  try {
    execFileSync(pinnedNode, ['--version'], { stdio: 'pipe' });
  } catch (error) {
    throw new SetupError(
      `the pinned Node does not start: ${error.message}`,
      'it needs glibc 2.28 or newer and a file system that allows programs to run (no noexec)',
    );
  }
}

/**
 * npm without what an outer `npm run` put into the environment: its node_modules/.bin holds the very Node that `npm ci`
 * is about to remove.
 */
function npmEnvironment() {
  const env = { ...process.env };
  for (const name of Object.keys(env)) {
    if (/^npm_(lifecycle|package|command|node_execpath|execpath)/.test(name)) delete env[name];
    if (/^npm_config_nodedir$/i.test(name)) delete env[name];
  }
  const folders = (env.PATH ?? '').split(':').filter((folder) => !folder.endsWith('/node_modules/.bin'));
  env.PATH = folders.join(':');
  return env;
}

function lockHash() {
  return createHash('sha256').update(readFileSync(lockFile)).digest('hex');
}

function writeStamp(hash) {
  try {
    writeFileSync(stampFile, hash);
  } catch {
    // A checkout owned by someone else: the next run compares again, which only costs a few milliseconds.
  }
}

function readOrEmpty(path) {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
