import { FIELD_OVERHEAD, type HeaderField } from './static-table.ts';

/**
 * The dynamic table of one direction of one connection (RFC 7541 §2.3.2, §4). Empty it owns nothing, so that thousands
 * of idle connections cost nothing here.
 */
export class DynamicTable {
  /** Octets in use, by the accounting of RFC 7541 §4.1. Never above `maxSize`. */
  size = 0;
  maxSize: number;
  /** Oldest first, so that adding and evicting touch the two ends. */
  private entries: HeaderField[] = NO_ENTRIES;

  constructor(maxSize: number) {
    this.maxSize = maxSize;
  }

  get length(): number {
    return this.entries.length;
  }

  /** The field at `position`, 1 being the newest; undefined beyond the end. */
  get(position: number): HeaderField | undefined {
    return this.entries[this.entries.length - position];
  }

  /** Adds a field as the newest, evicting the oldest; one larger than the table empties it (RFC 7541 §4.4). */
  add(field: HeaderField): void {
    const size = fieldSize(field);
    this.evictTo(this.maxSize - size);
    if (size > this.maxSize) return;
    if (this.entries === NO_ENTRIES) this.entries = [];
    this.entries.push(field);
    this.size += size;
  }

  /** Changes the maximum size, evicting what no longer fits (RFC 7541 §4.3). */
  resize(maxSize: number): void {
    this.maxSize = maxSize;
    this.evictTo(maxSize);
  }

  /** Looks a field up: its position (1 is the newest), or minus the position of one with its name, or 0. */
  find(name: string, value: string): number {
    const entries = this.entries;
    let sameName = 0;
    for (let i = entries.length - 1; i >= 0; i--) {
      const entry = entries[i]!;
      if (entry[0] !== name) continue;
      if (entry[1] === value) return entries.length - i;
      if (sameName === 0) sameName = i - entries.length;
    }
    return sameName;
  }

  private evictTo(size: number): void {
    while (this.size > size && this.entries.length > 0) this.size -= fieldSize(this.entries.shift()!);
    if (this.entries.length === 0) this.entries = NO_ENTRIES;
  }
}

/** The size of a field in tables and lists: its octets and 32 (RFC 7541 §4.1). */
export function fieldSize(field: HeaderField): number {
  return field[0].length + field[1].length + FIELD_OVERHEAD;
}

/** Shared by all empty tables, never written. */
const NO_ENTRIES: HeaderField[] = [];
