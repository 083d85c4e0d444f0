// Where things are in a checkout.
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
export const modules = join(root, 'node_modules');
export const cache = join(root, '.cache');

/** The npm package that carries Node's binary and headers for this machine. */
export const nodePackage = join(modules, `node-linux-${process.arch}`);
export const pinnedNode = join(nodePackage, 'bin', 'node');

/** This process's environment with the pinned tools first, and the administrator's folders that a plain user's PATH lacks. */
export function toolEnvironment() {
  const env = { ...process.env };
  const folders = [join(modules, '.bin'), ...(env.PATH ?? '/usr/local/bin:/usr/bin:/bin').split(':')];
  env.PATH = [...new Set([...folders, '/usr/local/sbin', '/usr/sbin', '/sbin'])].join(':');
  return env;
}
