/**
 * One copy of what many objects say: the labels of a deployment's pods, the name of their node. A pool that has grown large
 * is given up: nothing depends on two equal things being one, it only saves memory.
 */
const LARGEST_POOL = 50_000;

const texts = new Map<string, string>();
const values = new Map<string, unknown>();

export function sharedText(text: string): string {
  return shared(texts, text, text);
}

/** Equal data becomes one frozen object. For plain data only. */
export function sharedData<T extends object>(data: T): T {
  return shared(values, JSON.stringify(data), data, true) as T;
}

function shared<T>(pool: Map<string, T>, key: string, value: T, freeze = false): T {
  const known = pool.get(key);
  if (known !== undefined) return known;
  if (pool.size >= LARGEST_POOL) pool.clear();
  pool.set(key, freeze ? Object.freeze(value) : value);
  return value;
}
