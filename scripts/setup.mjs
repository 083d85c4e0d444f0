// Makes a checkout ready to run: dependencies, native addon, programs of the distribution. It is plain JavaScript for
// Node 20, because the pinned Node is one of the things that it installs.
//
//   node scripts/setup.mjs [sub-command of culvert]      used by bin/culvert

import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { addonFile, addonIsCurrent, buildAddon } from './setup/addon.mjs';
import { dependenciesAreCurrent, installDependencies } from './setup/dependencies.mjs';
import { cache } from './setup/layout.mjs';
import { withLock } from './setup/lock.mjs';
import { benchPrograms, installPackagesOf, missingPrograms, podPrograms, testPrograms } from './setup/packages.mjs';
import { buildPlugin, pluginIsCurrent } from './setup/plugin.mjs';
import { SetupError, say } from './setup/report.mjs';

/**
 * What a command needs beyond the dependencies. `addon` is the variant to build, or null.
 *
 * @typedef {{ addon: 'normal' | 'asan' | null, programs: string[] }} Needs
 * @type {Record<'run' | 'pods' | 'tests' | 'bench' | 'tools' | 'asan', Needs>}
 */
export const needs = {
  run: { addon: 'normal', programs: [] },
  pods: { addon: 'normal', programs: podPrograms },
  tests: { addon: 'normal', programs: [...podPrograms, ...testPrograms] },
  bench: { addon: 'normal', programs: [...podPrograms, ...benchPrograms] },
  tools: { addon: null, programs: [] },
  asan: { addon: 'asan', programs: [] },
};

/**
 * Brings the checkout to the state that `wanted` describes. Says nothing and writes nothing when it is there already.
 *
 * @param {Needs} wanted
 * @throws {SetupError}
 */
export async function setUp(wanted) {
  requireNode(20);
  // Programs first: their absence is known at once, and reported before minutes go into the rest.
  const missing = missingPrograms(wanted.programs);
  if (missing.length > 0) await locked((holdFor) => installPackagesOf(missing, holdFor));
  if (isCurrent(wanted)) return;
  await locked(async (holdFor) => {
    if (!dependenciesAreCurrent()) await installDependencies(holdFor);
    if (wanted.addon !== null && !addonIsCurrent(wanted.addon)) await buildAddon(wanted.addon, holdFor);
    // Its compiler is there: the addon was built with it.
    if (wanted.addon !== null && !pluginIsCurrent()) await buildPlugin(holdFor);
  });
}

/** Runs `work`; a {@link SetupError} becomes a message on stderr and exit status 1. */
export async function orExplain(work) {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    say(error.message);
    say(`remedy: ${error.remedy}`);
    process.exit(1);
  }
}

function isCurrent(wanted) {
  return dependenciesAreCurrent() && (wanted.addon === null || (addonIsCurrent(wanted.addon) && pluginIsCurrent()));
}

function locked(work) {
  return withLock(join(cache, 'setup.lock'), work);
}

function requireNode(major) {
  if (Number(process.versions.node.split('.')[0]) >= major) return;
  throw new SetupError(`this is Node ${process.versions.node}`, `install Node ${major} or newer`);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  await orExplain(() => setUp(process.argv[2] === 'demo' ? needs.pods : needs.run));
}

export { addonFile };
