import { createRequire } from 'node:module';

const BUILT = import.meta.url.endsWith('.ts') ? './build/Release/culvert.node' : './culvert.node';

/**
 * The compiled addon. Every thread that imports this gets its own instance: nothing mutable is shared.
 *
 * `CULVERT_ADDON` names another file; by default it is what node-gyp built beside this file, or lies beside the bundle.
 */
export const addon: unknown = load(process.env.CULVERT_ADDON ?? BUILT);

function load(path: string): unknown {
  try {
    return createRequire(import.meta.url)(path);
  } catch (cause) {
    throw new Error(`cannot load the native addon ${path}; bin/culvert builds it when it is missing`, { cause });
  }
}
