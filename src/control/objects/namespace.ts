import type { Kind } from '../kinds.ts';
import { Field } from './field.ts';
import { type Metadata, readMetadata } from './metadata.ts';
import { type RoutingAnnotations, readRoutingAnnotations } from './service.ts';

export interface Namespace extends Metadata {
  readonly annotations: RoutingAnnotations;
}

export const NAMESPACES: Kind<Namespace> = {
  kind: 'Namespace',
  group: '',
  version: 'v1',
  plural: 'namespaces',
  namespaced: false,
  optional: false,
  read(object) {
    const namespace = Field.of(object);
    return { ...readMetadata(namespace, false), annotations: readRoutingAnnotations(namespace) };
  },
};
