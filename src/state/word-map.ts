// Hot path of taking in a mesh: `npm run bench -- mesh`.
import { free } from './off-heap.ts';

/**
 * A map from 32-bit numbers to such numbers, kept outside of the heap: 8 bytes per entry and as much free room. Like
 * PackedMap it grows in small steps.
 */
export class WordMap {
  /** Made as they are needed: there is a map for each network, and whoever edits a ServiceEntry can name a new one. */
  readonly #shards: (Shard | undefined)[] = [];

  get size(): number {
    return this.#shards.reduce((sum, shard) => sum + (shard?.size ?? 0), 0);
  }

  /** NOTHING when there is none. Both numbers are signed. */
  get(key: number): number {
    const hash = hashOf(key);
    return this.#shards[hash >>> SHARD_SHIFT]?.get(hash, key) ?? NOTHING;
  }

  /** @param value any but NOTHING */
  set(key: number, value: number): void {
    const hash = hashOf(key);
    const index = hash >>> SHARD_SHIFT;
    this.#shards[index] ??= new Shard();
    this.#shards[index].set(hash, key, value);
  }

  delete(key: number): void {
    const hash = hashOf(key);
    this.#shards[hash >>> SHARD_SHIFT]?.delete(hash, key);
  }
}

export const NOTHING = -1;

/** For 64 of them. */
const SHARD_SHIFT = 26;

/** Open addressing, at most 3/4 full. */
class Shard {
  size = 0;
  /** Key and value of each place beside each other; a value of NOTHING makes it a free one. */
  #places = freePlaces(8);

  get(hash: number, key: number): number {
    return this.#places[this.#find(hash, key) + 1]!;
  }

  set(hash: number, key: number, value: number): void {
    const at = this.#find(hash, key);
    const isNew = this.#places[at + 1] === NOTHING;
    this.#places[at] = key;
    this.#places[at + 1] = value;
    if (isNew && ++this.size * 8 > this.#places.length * 3) this.#grow();
  }

  delete(hash: number, key: number): void {
    const places = this.#places;
    const mask = places.length - 1;
    let gap = this.#find(hash, key);
    if (places[gap + 1] === NOTHING) return;
    this.size--;
    // Those behind it that it was in the way of move up.
    for (let next = (gap + 2) & mask; places[next + 1] !== NOTHING; next = (next + 2) & mask) {
      const home = (hashOf(places[next]!) << 1) & mask;
      if (((next - home) & mask) < ((next - gap) & mask)) continue;
      places[gap] = places[next]!;
      places[gap + 1] = places[next + 1]!;
      gap = next;
    }
    places[gap + 1] = NOTHING;
  }

  /** Where the key is, or would be. */
  #find(hash: number, key: number): number {
    const places = this.#places;
    const mask = places.length - 1;
    let at = (hash << 1) & mask;
    while (places[at + 1] !== NOTHING && places[at] !== key) at = (at + 2) & mask;
    return at;
  }

  #grow(): void {
    const places = this.#places;
    this.#places = freePlaces(places.length);
    for (let from = 0; from < places.length; from += 2) {
      if (places[from + 1] === NOTHING) continue;
      const at = this.#find(hashOf(places[from]!), places[from]!);
      this.#places[at] = places[from]!;
      this.#places[at + 1] = places[from + 1]!;
    }
    free(places);
  }
}

function freePlaces(count: number): Int32Array<ArrayBuffer> {
  return new Int32Array(count * 2).fill(NOTHING);
}

/** The last step of MurmurHash3. */
function hashOf(key: number): number {
  let hash = Math.imul(key ^ (key >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}
