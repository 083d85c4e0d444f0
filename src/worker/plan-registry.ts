import { cidrContains, parseCidr, parseIp } from '../netns/address.ts';
import type { MeshChange } from '../state/mesh-state.ts';
import { addressOfReadKey } from '../state/read-keys.ts';
import { type CidrVip, splitNetworkAddress } from '../state/types.ts';

/** Plans that a thread keeps per pod, and in all. A client that scans addresses must not fill the memory. */
const MAX_PER_POD = 4096;
const MAX_PER_THREAD = 32_768;

/**
 * Which plans the threads hold, and what each was derived from. A change makes those invalid that read something it
 * touched, and no others.
 *
 * The control thread decides what is kept: a thread drops a plan when it is told to, and only then.
 */
export class PlanRegistry<Thread> {
  readonly #threads = new Map<Thread, ThreadPlans>();
  readonly #readers = new Map<string, Set<HeldPlan<Thread>>>();

  get size(): number {
    let size = 0;
    for (const { all } of this.#threads.values()) size += all.size;
    return size;
  }

  /**
   * Notes a plan. To be called in the same turn in which it was made and sent, so that no change falls in between.
   *
   * @param id number of the plan within the thread, never used again
   * @returns the numbers of plans that have to go in exchange
   */
  add(thread: Thread, pod: string, id: number, reads: Iterable<string>): number[] {
    let plans = this.#threads.get(thread);
    if (plans === undefined) {
      plans = { all: new Map(), byPod: new Map() };
      this.#threads.set(thread, plans);
    }
    let ofPod = plans.byPod.get(pod);
    if (ofPod === undefined) {
      ofPod = new Set();
      plans.byPod.set(pod, ofPod);
    }
    const displaced: number[] = [];
    if (ofPod.size >= MAX_PER_POD) displaced.push(first(ofPod));
    else if (plans.all.size >= MAX_PER_THREAD) displaced.push(first(plans.all.keys()));
    for (const gone of displaced) this.#remove(plans.all.get(gone) as HeldPlan<Thread>);
    const held: HeldPlan<Thread> = { thread, pod, id, reads: [...reads] };
    plans.all.set(id, held);
    // The pod's set may have become empty, and so have been dropped, by what was displaced.
    plans.byPod.set(pod, ofPod.add(id));
    for (const read of held.reads) {
      const readers = this.#readers.get(read);
      if (readers === undefined) this.#readers.set(read, new Set([held]));
      else readers.add(held);
    }
    return displaced;
  }

  /** Whether a plan was derived from the look-up. */
  isRead(key: string): boolean {
    return this.#readers.has(key);
  }

  /** Forgets the plans that read something the change touched. Returns their numbers, by thread. */
  takeTouched(change: Pick<MeshChange, 'touched' | 'touchedBlocks'>): Map<Thread, number[]> {
    const touched = new Map<Thread, number[]>();
    const take = (readers: ReadonlySet<HeldPlan<Thread>> | undefined) => {
      for (const held of [...(readers ?? [])]) {
        this.#remove(held);
        const ids = touched.get(held.thread);
        if (ids === undefined) touched.set(held.thread, [held.id]);
        else ids.push(held.id);
      }
    };
    // Whichever is smaller: a push of everything touches far more than a node reads.
    if (change.touched.size < this.#readers.size) for (const key of change.touched) take(this.#readers.get(key));
    else for (const [key, readers] of [...this.#readers]) if (change.touched.has(key)) take(readers);
    if (change.touchedBlocks.length > 0) {
      const contains = blockMatcher(change.touchedBlocks);
      for (const [key, readers] of [...this.#readers]) if (contains(key)) take(readers);
    }
    return touched;
  }

  forgetPod(pod: string): void {
    for (const { all, byPod } of this.#threads.values()) {
      for (const id of [...(byPod.get(pod) ?? [])]) this.#remove(all.get(id) as HeldPlan<Thread>);
    }
  }

  forgetThread(thread: Thread): void {
    for (const held of [...(this.#threads.get(thread)?.all.values() ?? [])]) this.#remove(held as HeldPlan<Thread>);
    this.#threads.delete(thread);
  }

  #remove(held: HeldPlan<Thread>): void {
    const plans = this.#threads.get(held.thread);
    if (plans === undefined || !plans.all.delete(held.id)) return;
    const ofPod = plans.byPod.get(held.pod);
    ofPod?.delete(held.id);
    if (ofPod?.size === 0) plans.byPod.delete(held.pod);
    for (const read of held.reads) {
      const readers = this.#readers.get(read);
      readers?.delete(held);
      if (readers?.size === 0) this.#readers.delete(read);
    }
  }
}

interface HeldPlan<Thread = unknown> {
  readonly thread: Thread;
  readonly pod: string;
  readonly id: number;
  readonly reads: readonly string[];
}

interface ThreadPlans {
  /** By number, in the order they were made. */
  readonly all: Map<number, HeldPlan>;
  readonly byPod: Map<string, Set<number>>;
}

function first<T>(items: Iterable<T>): T {
  for (const item of items) return item;
  throw new RangeError('there is none');
}

/** Tells whether a look-up was one of an address inside the blocks. */
function blockMatcher(blocks: readonly CidrVip[]): (readKey: string) => boolean {
  const parsed = blocks.map(({ network, cidr }) => ({ network, cidr: parseCidr(cidr) }));
  return (readKey) => {
    const address = addressOfReadKey(readKey);
    if (address === null) return false;
    const { network, ip } = splitNetworkAddress(address);
    const words = parseIp(ip);
    if (words === null) return false;
    return parsed.some((block) => block.cidr !== null && block.network === network && cidrContains(block.cidr, words));
  };
}
