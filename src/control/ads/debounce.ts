/** Lets changes that come close together be told together (control-01 §7.6). */
export interface Debounce {
  /** Something has changed. */
  touch(): void;
  close(): void;
}

/** @param fire called once it was quiet for `quietMs`, or `maxMs` after the first change at the latest */
export function createDebounce(quietMs: number, maxMs: number, fire: () => void): Debounce {
  let timer: NodeJS.Timeout | null = null;
  let firstAt = 0;
  let lastAt = 0;

  function look(): void {
    const now = performance.now();
    const due = Math.min(lastAt + quietMs, firstAt + maxMs);
    if (now < due) {
      timer = setTimeout(look, Math.ceil(due - now));
      return;
    }
    timer = null;
    fire();
  }

  return {
    touch() {
      lastAt = performance.now();
      if (timer !== null) return;
      firstAt = lastAt;
      timer = setTimeout(look, Math.min(quietMs, maxMs));
    },
    close() {
      if (timer !== null) clearTimeout(timer);
    },
  };
}
