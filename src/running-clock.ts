/** Until a clock is read again at most so much counts, in ms: twice the time between two ticks of the data plane. */
const MOST = 1000;

/**
 * A clock for deadlines, in ms, monotonic: it stands still while its thread does (no processor, a process that was stopped).
 * Peers are not late for what nobody could take from them, and both ends of a connection may be in the thread that stood
 * still. To be read twice a second or so.
 *
 * @param clock ms, monotonic
 */
export function createRunningClock(clock: () => number = () => performance.now()): () => number {
  let last = clock();
  let time = last;
  return () => {
    const now = clock();
    time += Math.min(now - last, MOST);
    last = now;
    return time;
  };
}
