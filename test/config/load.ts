import { type Config, type Environment, loadConfig, type System } from '../../src/config/config.ts';
import type { CulvertError } from '../../src/errors.ts';

/** A machine with eight CPUs and the given files. */
export function systemWith(files: Readonly<Record<string, string>> = {}): System {
  return {
    exists: (path) => path in files,
    readText: (path) => files[path] ?? '',
    logicalCpus: () => 8,
  };
}

export function load(env: Environment, files: Readonly<Record<string, string>> = {}): Promise<Config> {
  return loadConfig(env, [], systemWith(files));
}

/** The lines of the error, one for each bad value, without the headline. */
export async function problemsOf(env: Environment, files: Readonly<Record<string, string>> = {}): Promise<string[]> {
  const error: CulvertError = await load(env, files).then(
    () => {
      throw new Error('the configuration was accepted');
    },
    (thrown) => thrown,
  );
  if (error.code !== 'CONFIG_INVALID') throw error;
  return error.message
    .split('\n')
    .slice(1)
    .map((line) => line.slice(2));
}
