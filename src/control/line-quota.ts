/** Bounds how many lines a second strangers can have written to the log. */
export interface LineQuota {
  /** How many lines were left out since the last one; null when this one is to be left out, too. */
  take(): number | null;
}

/** @param now ms that have passed */
export function createLineQuota(perSecond: number, now: () => number = () => performance.now()): LineQuota {
  let second = 0;
  let written = 0;
  let omitted = 0;
  return {
    take() {
      const current = Math.floor(now() / 1000);
      if (current !== second) written = 0;
      second = current;
      if (written >= perSecond) {
        omitted++;
        return null;
      }
      written++;
      const before = omitted;
      omitted = 0;
      return before;
    },
  };
}
