import type { Field } from './field.ts';
import { sharedData, sharedText } from './shared.ts';

export type Labels = Readonly<Record<string, string>>;

export interface Metadata {
  /** "" for a kind without namespaces. */
  readonly namespace: string;
  readonly name: string;
  readonly labels: Labels;
  /** Milliseconds since 1970; 0 when it is not said, as in a file. */
  readonly created: number;
  readonly generation: number;
}

/** @throws Error when the object has no name, or a label is no text */
export function readMetadata(object: Field, namespaced = true): Metadata {
  const metadata = object.at('metadata');
  return {
    ...readNames(object, namespaced),
    labels: sharedData(metadata.at('labels').labels()),
    created: timeOf(metadata.at('creationTimestamp').text()),
    generation: metadata.at('generation').integer(0, Number.MAX_SAFE_INTEGER) ?? 0,
  };
}

/**
 * Of what stands in for a malformed object: it has to stand in whatever the labels are. As the oldest of all, so that no
 * other comes before it.
 *
 * @throws Error when the object has no name
 */
export function readMetadataOfMalformed(object: Field): Metadata {
  try {
    return readMetadata(object);
  } catch {
    return { ...readNames(object, true), labels: {}, created: 0, generation: 0 };
  }
}

function readNames(object: Field, namespaced: boolean): Pick<Metadata, 'namespace' | 'name'> {
  const metadata = object.at('metadata');
  const name = metadata.at('name');
  // Keys are made of names: in one with a slash the parts could not be told apart.
  if (!NAME.test(name.text())) throw name.wrong('the name of the object: lower-case letters, digits, "-" and "."');
  const namespace = metadata.at('namespace');
  if (namespaced && !NAME.test(namespace.text())) throw namespace.wrong('the name of a namespace');
  return {
    namespace: namespaced ? sharedText(namespace.text()) : '',
    name: name.text(),
  };
}

/** An annotation; "" when absent. */
export function annotation(object: Field, name: string): string {
  return object.at('metadata').at('annotations').at(name).text();
}

/** `namespace/name`, the key of an object of a kind with namespaces. */
export function keyOf({ namespace, name }: { readonly namespace: string; readonly name: string }): string {
  return `${namespace}/${name}`;
}

/** Whether every label of the selector is there. An empty selector selects everything. */
export function isSubset(selector: Labels, labels: Labels): boolean {
  for (const key in selector) if (labels[key] !== selector[key]) return false;
  return true;
}

/** The older of two comes first; of two of one age the one whose key is less, so that every replica decides alike. */
export function byAge(a: Metadata, b: Metadata): number {
  return a.created - b.created || compareText(a.namespace, b.namespace) || compareText(a.name, b.name);
}

export function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** RFC 1123 subdomain, as Kubernetes wants of the names of these kinds. */
const NAME = /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/;

function timeOf(text: string): number {
  const time = Date.parse(text);
  return Number.isNaN(time) ? 0 : time;
}
