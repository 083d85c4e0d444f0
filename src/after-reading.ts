/**
 * Calls back once after `ms`, when what had arrived by then has been read: nothing is late because this thread had to wait
 * for a processor, after which its loop comes to its timers first. The returned function cancels it.
 */
export function afterReading(ms: number, callback: () => void): () => void {
  let turn: NodeJS.Immediate | undefined;
  const timer = setTimeout(() => {
    turn = setImmediate(callback);
  }, ms);
  return () => {
    clearTimeout(timer);
    clearImmediate(turn);
  };
}
