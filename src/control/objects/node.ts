import type { Kind } from '../kinds.ts';
import { Field } from './field.ts';
import { readMetadata } from './metadata.ts';
import { sharedData } from './shared.ts';

/** "" for what is not known. */
export interface Locality {
  readonly region: string;
  readonly zone: string;
  readonly subzone: string;
}

export interface Node {
  readonly name: string;
  readonly locality: Locality;
}

export const NODES: Kind<Node> = {
  kind: 'Node',
  group: '',
  version: 'v1',
  plural: 'nodes',
  namespaced: false,
  optional: false,
  read(object) {
    const { name, labels } = readMetadata(Field.of(object), false);
    const locality = {
      region: labels['topology.kubernetes.io/region'] ?? '',
      zone: labels['topology.kubernetes.io/zone'] ?? '',
      subzone: labels['topology.istio.io/subzone'] ?? '',
    };
    return { name, locality: sharedData(locality) };
  },
};
