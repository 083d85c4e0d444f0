import type { ObjectChange, RejectedObject } from './kinds.ts';

/** Malformed objects as they are now: each is forgotten when it is corrected or deleted. */
export interface Rejections {
  /** Returns whether that is news: a write to its status is another version of an object that is as wrong as before. */
  rejected(object: RejectedObject): boolean;
  apply(changes: readonly ObjectChange[]): void;
  list(): RejectedObject[];
  /** Called with an object that has been rejected, and with one that is not any more. */
  onChange(listener: (object: RejectedObject, isRejected: boolean) => void): void;
}

export function createRejections(): Rejections {
  const open = new Map<string, RejectedObject>();
  const listeners: ((object: RejectedObject, isRejected: boolean) => void)[] = [];
  const nameOf = ({ kind, key }: Pick<RejectedObject, 'kind' | 'key'>) => `${kind.kind}.${kind.group} ${key}`;

  return {
    rejected(object) {
      const before = open.get(nameOf(object));
      open.set(nameOf(object), object);
      for (const listener of listeners) listener(object, true);
      return before?.reason !== object.reason || before.generation !== object.generation;
    },
    apply(changes) {
      if (open.size === 0) return;
      for (const change of changes) {
        const object = open.get(nameOf(change));
        if (object === undefined) continue;
        open.delete(nameOf(change));
        for (const listener of listeners) listener(object, false);
      }
    },
    list: () => [...open.values()],
    onChange: (listener) => void listeners.push(listener),
  };
}
