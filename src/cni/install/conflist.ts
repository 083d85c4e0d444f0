import { CulvertError, messageOf } from '../../errors.ts';
import { fields, text } from '../../kube/object.ts';

/** `type` of the plugin: the name of its executable. */
export const PLUGIN_TYPE = 'culvert-cni';
/** The incumbent's: one node cannot have two who enrol pods. */
export const INCUMBENT_TYPE = 'istio-cni';

/** The entry of the plugin in a configuration. */
export type PluginEntry = Readonly<Record<string, string>> & { readonly type: typeof PLUGIN_TYPE };

/** A configuration file as a runtime reads it. */
export interface ConfFile {
  readonly name: string;
  readonly content: string;
}

/** The first file that a runtime would use, by name; those that it would pass over are left out (libcni). */
export function primaryConf(files: readonly ConfFile[], wanted: string | null = null): ConfFile | null {
  const names = wanted === null ? null : [wanted, otherExtension(wanted)];
  return (
    [...files]
      .sort((a, b) => (a.name < b.name ? -1 : 1))
      .find((file) => (names === null || names.includes(file.name)) && isUsable(file)) ?? null
  );
}

/** Types of the plugins in a file; empty when it cannot be read. */
export function pluginTypes(file: ConfFile): string[] {
  return pluginsOf(file).map((plugin) => text(fields(plugin).type));
}

/** Whether the plugin is the last of the chain, with exactly this entry, and nowhere else. */
export function isChained(file: ConfFile, entry: PluginEntry): boolean {
  const plugins = pluginsOf(file);
  const mine = plugins.filter((plugin) => fields(plugin).type === PLUGIN_TYPE);
  return file.name.endsWith('.conflist') && mine.length === 1 && mine[0] === plugins.at(-1) && isEqual(mine[0], entry);
}

/**
 * The file with the plugin as the last of the chain. One of a single plugin becomes a list, under the name that a list
 * has. @throws CulvertError 'CONFLIST_INVALID'
 */
export function chain(file: ConfFile, entry: PluginEntry): ConfFile {
  const conf = parse(file);
  if (!Array.isArray(conf.plugins)) {
    const { cniVersion, ...plugin } = conf;
    const list = { cniVersion: text(cniVersion) || '0.3.1', name: text(conf.name) || 'k8s-pod-network' };
    const name = file.name.endsWith('.conflist') ? file.name : `${file.name.replace(/\.conf$/, '')}.conflist`;
    return { name, content: print({ ...list, plugins: [plugin, entry] }) };
  }
  return { name: file.name, content: print({ ...conf, plugins: [...withoutMine(conf.plugins), entry] }) };
}

/** The file without the plugin; null when it has none. @throws CulvertError 'CONFLIST_INVALID' */
export function unchain(file: ConfFile): ConfFile | null {
  const conf = parse(file);
  if (!Array.isArray(conf.plugins)) return null;
  const rest = withoutMine(conf.plugins);
  return rest.length === conf.plugins.length ? null : { name: file.name, content: print({ ...conf, plugins: rest }) };
}

/** A file of the plugin's own, for a meta plugin. */
export function standalone(name: string, entry: PluginEntry): ConfFile {
  return { name, content: print({ cniVersion: '1.0.0', ...entry }) };
}

function isUsable(file: ConfFile): boolean {
  if (!/\.conf(list)?$/.test(file.name)) return false;
  const plugins = pluginsOf(file);
  const types = plugins.map((plugin) => text(fields(plugin).type));
  // A file of the plugin alone, left by a node agent that was not chained, is no network.
  return types.some((type) => type !== PLUGIN_TYPE) && !types.includes('');
}

function pluginsOf(file: ConfFile): unknown[] {
  try {
    const conf = parse(file);
    if (file.name.endsWith('.conflist')) return Array.isArray(conf.plugins) ? conf.plugins : [];
    return [conf];
  } catch {
    return [];
  }
}

function parse({ name, content }: ConfFile): Readonly<Record<string, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(content);
  } catch (cause) {
    throw new CulvertError('CONFLIST_INVALID', `${name} is not JSON: ${messageOf(cause)}`, { cause });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new CulvertError('CONFLIST_INVALID', `${name} is not a JSON object`);
  }
  return value as Record<string, unknown>;
}

function withoutMine(plugins: readonly unknown[]): unknown[] {
  return plugins.filter((plugin) => fields(plugin).type !== PLUGIN_TYPE);
}

function isEqual(value: unknown, entry: PluginEntry): boolean {
  const given = fields(value);
  const keys = Object.keys(entry);
  return Object.keys(given).length === keys.length && keys.every((key) => given[key] === entry[key]);
}

function otherExtension(name: string): string {
  return name.endsWith('list') ? name.slice(0, -'list'.length) : `${name}list`;
}

function print(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}
