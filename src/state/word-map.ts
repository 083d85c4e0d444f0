// Hot path of taking in a mesh: `npm run bench -- mesh`.
/**
 * A map from 32-bit numbers to such numbers, kept outside of the heap: 8 bytes per entry and as much free room. Like
 * PackedMap it grows in small steps.
 */
export class WordMap {
  readonly #shards = Array.from({ length: SHARDS }, () => new Shard());

  get size(): number {
    return this.#shards.reduce((sum, { size }) => sum + size, 0);
  }

  /** NOTHING when there is none. Both numbers are signed. */
  get(key: number): number {
    const hash = hashOf(key);
    return this.#shards[hash >>> SHARD_SHIFT]!.get(hash, key);
  }

  /** @param value any but NOTHING */
  set(key: number, value: number): void {
    const hash = hashOf(key);
    this.#shards[hash >>> SHARD_SHIFT]!.set(hash, key, value);
  }

  delete(key: number): void {
    const hash = hashOf(key);
    this.#shards[hash >>> SHARD_SHIFT]!.delete(hash, key);
  }
}

export const NOTHING = -1;

const SHARD_SHIFT = 26;
const SHARDS = 64;

/** Open addressing, at most 3/4 full. */
class Shard {
  size = 0;
  #keys = new Int32Array(8);
  /** NOTHING for a free place. */
  #values = new Int32Array(8).fill(NOTHING);

  get(hash: number, key: number): number {
    return this.#values[this.#slotOf(hash, key)]!;
  }

  set(hash: number, key: number, value: number): void {
    const slot = this.#slotOf(hash, key);
    const isNew = this.#values[slot] === NOTHING;
    this.#keys[slot] = key;
    this.#values[slot] = value;
    if (isNew && ++this.size * 4 > this.#keys.length * 3) this.#grow();
  }

  delete(hash: number, key: number): void {
    const [keys, values] = [this.#keys, this.#values];
    const mask = keys.length - 1;
    let gap = this.#slotOf(hash, key);
    if (values[gap] === NOTHING) return;
    this.size--;
    // Those behind it that it was in the way of move up.
    for (let next = (gap + 1) & mask; values[next] !== NOTHING; next = (next + 1) & mask) {
      const home = hashOf(keys[next]!) & mask;
      if (((next - home) & mask) < ((next - gap) & mask)) continue;
      keys[gap] = keys[next]!;
      values[gap] = values[next]!;
      gap = next;
    }
    values[gap] = NOTHING;
  }

  #slotOf(hash: number, key: number): number {
    const mask = this.#keys.length - 1;
    let slot = hash & mask;
    while (this.#values[slot] !== NOTHING && this.#keys[slot] !== key) slot = (slot + 1) & mask;
    return slot;
  }

  #grow(): void {
    const [keys, values] = [this.#keys, this.#values];
    this.#keys = new Int32Array(keys.length * 2);
    this.#values = new Int32Array(keys.length * 2).fill(NOTHING);
    for (let from = 0; from < keys.length; from++) {
      if (values[from] === NOTHING) continue;
      const slot = this.#slotOf(hashOf(keys[from]!), keys[from]!);
      this.#keys[slot] = keys[from]!;
      this.#values[slot] = values[from]!;
    }
  }
}

/** The last step of MurmurHash3. */
function hashOf(key: number): number {
  let hash = Math.imul(key ^ (key >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}
