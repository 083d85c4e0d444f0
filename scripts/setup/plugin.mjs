// The CNI plugin: a static executable, because it runs on nodes of any distribution, outside of every container.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cache, root, toolEnvironment } from './layout.mjs';
import { runStep } from './report.mjs';

const sourceFolder = join(root, 'native', 'cni-plugin');
const buildFolder = join(sourceFolder, 'build');
const stampFile = join(buildFolder, 'culvert-cni.stamp');

/** The executable that the build makes. */
export const pluginFile = join(buildFolder, 'culvert-cni');

const flags = [
  ...['-std=c++17', '-O2', '-Wall', '-Wextra', '-static', '-fno-exceptions', '-fno-rtti'],
  ...['-ffunction-sections', '-fdata-sections', '-Wl,--gc-sections', '-s'],
  ...['-fstack-protector-strong', '-D_FORTIFY_SOURCE=2', '-Wl,-z,relro,-z,now'],
];

/** True when the plugin was built from the sources as they are now. */
export function pluginIsCurrent() {
  try {
    return existsSync(pluginFile) && readFileSync(stampFile, 'utf8') === sourceHash();
  } catch {
    return false;
  }
}

/** @param {(pid: number) => void} [holdFor] told each program that this starts */
export async function buildPlugin(holdFor) {
  mkdirSync(buildFolder, { recursive: true });
  const hash = sourceHash();
  const staged = `${pluginFile}.${process.pid}`;
  const sources = sourceNames().filter((name) => name.endsWith('.cc'));
  try {
    await runStep(
      {
        title: 'building the CNI plugin',
        command: 'c++',
        args: [...flags, `-DCULVERT_VERSION="${version()}"`, '-o', staged, ...sources],
        cwd: sourceFolder,
        env: toolEnvironment(),
        log: join(cache, 'cni-plugin.log'),
        remedy: 'the lines above name the cause; it needs a C++17 compiler with static libraries (Debian: g++)',
      },
      holdFor,
    );
    renameSync(staged, pluginFile);
    writeFileSync(stampFile, hash);
  } finally {
    rmSync(staged, { force: true });
  }
}

function sourceHash() {
  const hash = createHash('sha256').update(JSON.stringify([process.arch, version(), flags]));
  for (const name of sourceNames()) hash.update(`\0${name}\0`).update(readFileSync(join(sourceFolder, name)));
  return hash.digest('hex');
}

function sourceNames() {
  return readdirSync(sourceFolder)
    .filter((name) => /\.(cc|h)$/.test(name))
    .sort();
}

function version() {
  return JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).version;
}
