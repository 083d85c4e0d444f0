/**
 * One copy of what many objects say: the labels of a deployment's pods, the name of their node. A pool that has grown large
 * is given up: nothing depends on two equal things being one, it only saves memory. What is large is hardly said twice, and
 * would stay in the pool after its object.
 */
const LARGEST_POOL = 50_000;
/** Both in UTF-16 code units. */
const LARGEST_KEY = 2048;
const LARGEST_SUM_OF_KEYS = 8_000_000;

interface Pool<T> {
  readonly entries: Map<string, T>;
  sumOfKeys: number;
}

const texts: Pool<string> = { entries: new Map(), sumOfKeys: 0 };
const values: Pool<unknown> = { entries: new Map(), sumOfKeys: 0 };

export function sharedText(text: string): string {
  return shared(texts, text, text);
}

/** Equal data becomes one frozen object. For plain data only. */
export function sharedData<T extends object>(data: T): T {
  return shared(values, JSON.stringify(data), Object.freeze(data)) as T;
}

function shared<T>(pool: Pool<T>, key: string, value: T): T {
  if (key.length > LARGEST_KEY) return value;
  const known = pool.entries.get(key);
  if (known !== undefined) return known;
  if (pool.entries.size >= LARGEST_POOL || pool.sumOfKeys + key.length > LARGEST_SUM_OF_KEYS) {
    pool.entries.clear();
    pool.sumOfKeys = 0;
  }
  pool.entries.set(key, value);
  pool.sumOfKeys += key.length;
  return value;
}
