/** Numbers that follow from a seed, so that a failing case can be run again. */
export interface Random {
  /** 0..limit-1 */
  int(limit: number): number;
  chance(probability: number): boolean;
  pick<T>(choices: readonly T[]): T;
  octets(length: number): Uint8Array;
}

/** A small generator (mulberry32); quality beyond "looks random" is of no use here. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
  const int = (limit: number) => Math.floor(next() * limit);
  return {
    int,
    chance: (probability) => next() < probability,
    pick: (choices) => choices[int(choices.length)]!,
    octets: (length) => Uint8Array.from({ length }, () => int(256)),
  };
}
