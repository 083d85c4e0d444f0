import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/**
 * Collects garbage now. V8 collects only when something is allocated, which an idle thread does not do: it would keep
 * what a burst of work has left for ever. @param type `minor` for what has died young
 */
export function collectGarbage(type: 'minor' | 'major'): void {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as (options: { type: string }) => void;
  collect({ type });
}
