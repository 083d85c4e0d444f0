import { join } from 'node:path';
import { replaceFile } from '../install/files.ts';

/** What the plugin goes by while no node agent answers. */
export interface PluginState {
  /** Namespaces whose pods must not start without the mesh. */
  readonly enrolledNamespaces: readonly string[];
  /** Pods that start in any case: those of culvert itself, by namespace and beginning of their name. */
  readonly exempt: readonly { readonly namespace: string; readonly prefix: string }[];
}

/** Name of the file in the state folder. */
export const STATE_FILE = 'cni-state';

/** One line each, so that the plugin reads it without a parser: `namespace NAME`, `exempt NAMESPACE PREFIX`. */
export function formatPluginState({ enrolledNamespaces, exempt }: PluginState): string {
  return [
    'culvert-cni-state 1',
    ...exempt.map(({ namespace, prefix }) => `exempt ${namespace} ${prefix}`),
    ...[...enrolledNamespaces].sort().map((name) => `namespace ${name}`),
    '',
  ].join('\n');
}

/** Writes the file when it is to change. @returns a function that takes the new state; @throws the errno of writing */
export function createStateFile(folder: string): (state: PluginState) => void {
  let written: string | null = null;
  return (state) => {
    const content = formatPluginState(state);
    if (content === written) return;
    replaceFile(join(folder, STATE_FILE), content, 0o600);
    written = content;
  };
}
