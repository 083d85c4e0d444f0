/**
 * Which thread opened the tunnel that starts at a port, so that the thread that accepts it, when it is a pod of the same
 * node, can pass it on: with both ends in one thread nobody has to be woken in between (bench/: pods).
 *
 * One byte per port, shared by the threads. It is a hint: a port that is also used by somebody else's connection costs
 * that connection a detour, nothing else.
 */
export class TunnelAffinity {
  readonly #threads: Uint8Array;
  readonly #own: number;

  /** `own` is the number of this thread, 1..255; with 0 nothing is claimed and everything stays where it was accepted. */
  constructor(shared: SharedArrayBuffer, own: number) {
    this.#threads = new Uint8Array(shared);
    this.#own = own <= MAX_THREAD ? own : 0;
  }

  /** This thread is opening a tunnel from this port. */
  claim(port: number): void {
    if (this.#own > 0) Atomics.store(this.#threads, port, this.#own);
  }

  /** The other thread whose tunnel it is; 0 when it is this one's, or nobody's that is known. */
  otherOwner(port: number): number {
    const owner = this.#own === 0 ? 0 : Atomics.load(this.#threads, port);
    return owner === this.#own ? 0 : owner;
  }
}

/** The memory that the threads of a process share. */
export function newAffinityTable(): SharedArrayBuffer {
  return new SharedArrayBuffer(PORTS);
}

const PORTS = 65_536;
const MAX_THREAD = 255;
