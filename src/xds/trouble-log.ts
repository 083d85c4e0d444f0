import type { Logger } from '../log/logger.ts';

/** Says what is wrong once, again when it has lasted, and once that it is over. */
export function createTroubleLog(log: Logger) {
  /** Kind of trouble → when it was said. */
  const told = new Map<string, number>();
  let began: number | null = null;
  return {
    /** @param isSynced whether there was mesh state before */
    met(kind: string, sentence: string, delay: number, isSynced: boolean): void {
      const now = performance.now();
      began ??= now;
      for (const [each, at] of told) if (now - at >= REPEAT_MS) told.delete(each);
      if (told.has(kind) || told.size >= MAX_TOLD) return;
      told.set(kind, now);
      const meanwhile = isSynced ? 'what is known stays in force' : 'the agent is not ready before it has come';
      log.warn('xds', `no mesh state from the control plane, ${meanwhile}`, {
        error: sentence,
        since: `${Math.round((now - began) / 1000)}s`,
        retry: `${Math.round(delay)}ms`,
      });
    },
    over(): void {
      if (began === null) return;
      log.info('xds', 'the control plane is back', { after: `${Math.round((performance.now() - began) / 1000)}s` });
      told.clear();
      began = null;
    },
  };
}

const REPEAT_MS = 60_000;
/** Kinds of trouble that are told in that time. */
const MAX_TOLD = 8;
