import { messageOf } from '../../errors.ts';
import type { KubeApi } from '../../kube/api.ts';
import { type Reflector, startReflector } from '../../kube/reflector.ts';
import type { Logger } from '../../log/logger.ts';
import type { Kind, ObjectListener, ObjectSource } from '../kinds.ts';
import { createBatch } from './batch.ts';
import { collectionPath, generationOf, keyOf, readerOf } from './of-kind.ts';

export interface KubernetesSource extends ObjectSource {
  /** Times that a list or a watch of each kind failed, since the start. */
  failures(): readonly { readonly kind: Kind; readonly failures: number }[];
  /** Kinds that are not followed at the moment, and why. */
  problems(): readonly string[];
}

export interface KubernetesSourceOptions {
  readonly api: Pick<KubeApi, 'get' | 'lines'>;
  readonly kinds: readonly Kind[];
  readonly listener: ObjectListener;
  readonly log: Pick<Logger, 'info' | 'warn'>;
  readonly random?: () => number;
  /** Longest silence of a watch, in ms. */
  readonly stallMs?: number;
  /** How often a kind that the cluster does not have is looked for, in ms. */
  readonly missingMs?: number;
}

/**
 * Follows every kind by a list and a watch of its own. Nothing that is known is dropped because the API server is away,
 * slow, or has forgotten where a watch stood: only a deletion, or a complete list without the object, removes it.
 */
export function watchKubernetes(options: KubernetesSourceOptions): KubernetesSource {
  const { kinds, listener, stallMs = 120_000, ...rest } = options;
  const batch = createBatch(listener);
  const reflectors = kinds.map((kind) => ({ kind, reflector: follow(kind) }));

  function follow(kind: Kind): Reflector<unknown> {
    return startReflector<unknown>({
      ...rest,
      stallMs,
      path: collectionPath(kind),
      ...(kind.fieldSelector === undefined ? {} : { query: { fieldSelector: kind.fieldSelector } }),
      optional: kind.optional,
      key: (object) => keyOf(kind, object),
      ...readerOf(kind),
      onChange: (before, after, key) => batch.changed({ kind, key, before, after }),
      onRejected: (object, key, error) =>
        batch.rejected({ kind, key, generation: generationOf(object), reason: messageOf(error) }),
    });
  }

  return {
    synced: Promise.all(reflectors.map(({ reflector }) => reflector.synced)).then(() => batch.flush()),
    failures: () => reflectors.map(({ kind, reflector }) => ({ kind, failures: reflector.failures() })),
    problems: () =>
      reflectors.flatMap(({ kind, reflector }) => {
        const problem = reflector.problem();
        return problem === null ? [] : [`${kind.plural}: ${problem}`];
      }),
    close() {
      for (const { reflector } of reflectors) reflector.close();
    },
  };
}
