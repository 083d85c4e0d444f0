/** Much work in a short time, such as a whole node of pods, leaves garbage that nothing collects afterwards. */
export interface AfterBurst {
  /** A piece of work was done. */
  note(): void;
  close(): void;
}

/** Less work than this is not worth a collection. */
const WORTHWHILE = 50;
const QUIET_MS = 5_000;

/** Calls `collect` once it has been quiet for a while after much work. @param quietMs in ms */
export function createAfterBurst(collect: () => void, quietMs = QUIET_MS): AfterBurst {
  let count = 0;
  let timer: NodeJS.Timeout | undefined;

  return {
    note() {
      count++;
      clearTimeout(timer);
      timer = setTimeout(() => {
        if (count < WORTHWHILE) return;
        count = 0;
        collect();
      }, quietMs);
      timer.unref();
    },
    close: () => clearTimeout(timer),
  };
}
