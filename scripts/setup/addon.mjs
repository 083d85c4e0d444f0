// The native addon, built with node-gyp against the pinned Node's own headers.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cache, modules, nodePackage, pinnedNode, root, toolEnvironment } from './layout.mjs';
import { buildPrograms, installPackagesOf, missingPrograms } from './packages.mjs';
import { runStep } from './report.mjs';

const sourceFolder = join(root, 'native');

/**
 * A way to build the addon: where node-gyp runs, and what it is told. A variant other than the normal one is built in
 * a folder of links to the sources, because node-gyp always builds into `build` beside binding.gyp.
 */
const variants = {
  normal: { folder: sourceFolder, gyp: [] },
  asan: { folder: join(cache, 'addon-asan'), gyp: ['-Dsanitize=address'] },
};

/**
 * The file that a variant's build makes.
 *
 * @param {keyof typeof variants} variant
 */
export function addonFile(variant = 'normal') {
  return join(variants[variant].folder, 'build', 'Release', 'culvert.node');
}

/**
 * True when the addon was built from the sources as they are now.
 *
 * @param {keyof typeof variants} variant
 */
export function addonIsCurrent(variant = 'normal') {
  if (!existsSync(addonFile(variant))) return false;
  try {
    return readFileSync(stampFile(variant), 'utf8') === sourceHash(variant);
  } catch {
    return false;
  }
}

/**
 * Builds the addon; make rebuilds only what changed.
 *
 * @param {keyof typeof variants} variant
 * @param {(pid: number) => void} [holdFor] told each program that this starts
 */
export async function buildAddon(variant, holdFor) {
  const missing = missingPrograms(buildPrograms);
  if (missing.length > 0) await installPackagesOf(missing, holdFor);
  const { folder, gyp } = variants[variant];
  // Taken first: a source that changes during the build is then seen as newer.
  const hash = sourceHash(variant);
  if (folder !== sourceFolder) linkSources(folder);
  rmSync(stampFile(variant), { force: true });
  const nodeGyp = (title, args) =>
    runStep(
      {
        title,
        command: pinnedNode,
        args: [join(modules, 'node-gyp', 'bin', 'node-gyp.js'), ...args],
        cwd: folder,
        env: nodeGypEnvironment(),
        log: join(cache, `addon-${variant}-${args[0]}.log`),
        remedy: 'the lines above name the cause; the addon needs a C++17 compiler (Debian: g++), make and python3',
      },
      holdFor,
    );
  const label = variant === 'normal' ? 'the addon' : `the addon (${variant})`;
  await nodeGyp(`configuring ${label}`, ['configure', `--nodedir=${nodePackage}`, '--', ...gyp]);
  await nodeGyp(`building ${label}`, ['build', `--nodedir=${nodePackage}`, '--jobs=max']);
  writeFileSync(stampFile(variant), hash);
}

/** Everything that the built file depends on: sources, headers' version, Node's version, machine, variant. */
function sourceHash(variant) {
  const hash = createHash('sha256');
  const versions = [join(modules, 'node-addon-api'), nodePackage].map(
    (folder) => JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')).version,
  );
  hash.update(JSON.stringify([process.arch, ...versions, variants[variant].gyp]));
  for (const name of sourceNames()) {
    hash.update(`\0${name}\0`).update(readFileSync(join(sourceFolder, name)));
  }
  return hash.digest('hex');
}

function sourceNames() {
  return readdirSync(sourceFolder)
    .filter((name) => /\.(cc|h|gyp|gypi)$/.test(name))
    .sort();
}

function linkSources(folder) {
  mkdirSync(folder, { recursive: true });
  for (const name of readdirSync(folder)) {
    if (name !== 'build') rmSync(join(folder, name));
  }
  for (const name of sourceNames()) symlinkSync(join(sourceFolder, name), join(folder, name));
}

function stampFile(variant) {
  return join(variants[variant].folder, 'build', 'Release', 'culvert.stamp');
}

/** Without npm's settings for node-gyp: some machines point it at headers of another Node (`nodedir`). */
function nodeGypEnvironment() {
  const env = toolEnvironment();
  for (const name of Object.keys(env)) {
    if (/^npm_config_/i.test(name)) delete env[name];
  }
  return env;
}
