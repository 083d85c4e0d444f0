import { metadataOf, text } from '../../kube/object.ts';
import type { ObjectReader } from '../../kube/object-table.ts';
import type { Kind } from '../kinds.ts';

export function readerOf(kind: Kind): Pick<ObjectReader<unknown>, 'read' | 'standIn'> {
  return { read: (object) => kind.read(object), standIn: (object) => kind.standIn?.(object) ?? null };
}

/** `namespace/name`, or `name` of a kind without namespaces; "" when it lacks one of them. */
export function keyOf(kind: Pick<Kind, 'namespaced'>, object: unknown): string {
  const { namespace, name } = metadataOf(object);
  if (text(name) === '') return '';
  if (!kind.namespaced) return text(name);
  return text(namespace) === '' ? '' : `${namespace}/${name}`;
}

export function generationOf(object: unknown): number {
  const { generation } = metadataOf(object);
  return typeof generation === 'number' ? generation : 0;
}

/** Path of all objects of a kind, of every namespace. */
export function collectionPath({ group, version, plural }: Pick<Kind, 'group' | 'version' | 'plural'>): string {
  return group === '' ? `/api/${version}/${plural}` : `/apis/${group}/${version}/${plural}`;
}

/** Path of one object. @param key as in ObjectChange */
export function objectPath(kind: Pick<Kind, 'group' | 'version' | 'plural' | 'namespaced'>, key: string): string {
  const root = kind.group === '' ? `/api/${kind.version}` : `/apis/${kind.group}/${kind.version}`;
  if (!kind.namespaced) return `${root}/${kind.plural}/${key}`;
  const [namespace, name] = key.split('/');
  return `${root}/namespaces/${namespace}/${kind.plural}/${name}`;
}
