/** How long work in slices may hold the loop at a time, in ms. */
const SLICE = 4;

/**
 * Runs work to its end in slices, of which the first is done at once: small work is over when this returns.
 *
 * @param done called once with what the work returned; `isLater` tells whether other things happened in between
 */
export function runInSlices<T>(work: Generator<void, T>, done: (result: T, isLater: boolean) => void): void {
  const slice = (isLater: boolean) => {
    const end = performance.now() + SLICE;
    do {
      const step = work.next();
      if (step.done) {
        done(step.value, isLater);
        return;
      }
    } while (performance.now() < end);
    setImmediate(slice, true);
  };
  slice(false);
}

/** The same as a promise; rejects with what the work throws. */
export function inSlices<T>(work: Generator<void, T>): Promise<T> {
  return new Promise((resolve, reject) => {
    function* settled(): Generator<void, void> {
      try {
        resolve(yield* work);
      } catch (error) {
        reject(error);
      }
    }
    runInSlices(settled(), () => {});
  });
}
