/** Objects that workloads come from, and how they are found when something that they depend on changes. */
import type { EndpointSlice } from '../objects/endpoint-slice.ts';
import type { Labels, Metadata } from '../objects/metadata.ts';
import type { Pod } from '../objects/pod.ts';
import type { ServiceEntry } from '../objects/service-entry.ts';
import type { WorkloadEntry } from '../objects/workload-entry.ts';
import { LabelGroups } from './label-groups.ts';
import { MultiMap } from './multi-map.ts';

export type Source =
  | SourceOf<'Pod', Pod>
  | SourceOf<'WorkloadEntry', WorkloadEntry>
  | SourceOf<'ServiceEntry', ServiceEntry>
  | SourceOf<'EndpointSlice', EndpointSlice>;

export interface SourceOf<Kind extends string, T extends Metadata> {
  readonly kind: Kind;
  readonly namespace: string;
  labels: Labels;
  /** Null once it is gone; its workloads go when it is worked out the next time. */
  object: T | null;
  /** The workloads that came of it. */
  names: readonly string[];
  /** Waypoints that were asked for on its behalf. */
  waypoints: readonly string[];
}

export type SourceObject = NonNullable<Source['object']>;

export interface Sources {
  /** The source of the object, which is filed anew; null for an object that is not known and gone. */
  put(kind: Source['kind'], key: string, object: SourceObject | null): Source | null;
  get(kind: Source['kind'], key: string): Source | null;
  /** Pods, WorkloadEntries and ServiceEntries that the selector matches; an empty one matches all of the namespace. */
  matching(namespace: string, selector: Labels): Iterable<Source>;
  podsOn(node: string): Iterable<Source>;
  /** Slices of a service, by `namespace/name` of the Service. */
  slicesOf(service: string): Iterable<SourceOf<'EndpointSlice', EndpointSlice>>;
  /** Slices that the pod is an endpoint of. */
  slicesWith(pod: string): Iterable<SourceOf<'EndpointSlice', EndpointSlice>>;
  all(): Iterable<Source>;
  ofKind(kind: Source['kind']): Iterable<Source>;
  namespaces(): Iterable<string>;
}

type Slice = SourceOf<'EndpointSlice', EndpointSlice>;

export function createSources(): Sources {
  const byKey: Readonly<Record<Source['kind'], Map<string, Source>>> = {
    Pod: new Map(),
    WorkloadEntry: new Map(),
    ServiceEntry: new Map(),
    EndpointSlice: new Map(),
  };
  const groups = new LabelGroups<Source>();
  const podsByNode = new MultiMap<string, Source>();
  const slicesByService = new MultiMap<string, Slice>();
  const slicesByPod = new MultiMap<string, Slice>();

  function file(source: Source): void {
    if (source.kind === 'EndpointSlice') {
      const { namespace, service, pods } = source.object!;
      slicesByService.add(`${namespace}/${service}`, source);
      for (const pod of pods.keys()) slicesByPod.add(pod, source);
      return;
    }
    groups.add(source);
    if (source.kind === 'Pod') podsByNode.add(source.object!.node, source);
  }

  function takeOut(source: Source): void {
    if (source.kind === 'EndpointSlice') {
      const { namespace, service, pods } = source.object!;
      slicesByService.delete(`${namespace}/${service}`, source);
      for (const pod of pods.keys()) slicesByPod.delete(pod, source);
      return;
    }
    groups.delete(source);
    if (source.kind === 'Pod') podsByNode.delete(source.object!.node, source);
  }

  return {
    put(kind, key, object) {
      const known = byKey[kind].get(key);
      if (known !== undefined) {
        takeOut(known);
        known.object = object;
        if (object === null) byKey[kind].delete(key);
        else {
          known.labels = object.labels;
          file(known);
        }
        return known;
      }
      if (object === null) return null;
      const { namespace, labels } = object;
      const source = { kind, namespace, labels, object, names: NONE, waypoints: NONE } as Source;
      byKey[kind].set(key, source);
      file(source);
      return source;
    },
    get: (kind, key) => byKey[kind].get(key) ?? null,
    matching: (namespace, selector) => groups.matching(namespace, selector),
    podsOn: (node) => podsByNode.get(node),
    slicesOf: (service) => slicesByService.get(service),
    slicesWith: (pod) => slicesByPod.get(pod),
    *all() {
      for (const sources of Object.values(byKey)) yield* sources.values();
    },
    namespaces: () => groups.namespaces(),
    ofKind: (kind) => byKey[kind].values(),
  };
}

const NONE: readonly string[] = [];
