/** What happens on one connection of a stress test: both ends work it out from the connection's number. */

/** When an end gives up. */
export type Moment =
  | { readonly at: 'once' }
  /** The client: connect has returned. */
  | { readonly at: 'connecting' }
  /** The first event of this end: connected, or accepted. */
  | { readonly at: 'open' }
  | { readonly at: 'secured' }
  /** Inside the event that brings this byte. */
  | { readonly at: 'received'; readonly bytes: number }
  /** After writing this byte. */
  | { readonly at: 'sent'; readonly bytes: number }
  | { readonly at: 'drained' }
  | { readonly at: 'ended' }
  | { readonly at: 'shutdown' };

/** `finish` sends everything, ends its direction and closes when the other one has ended too. */
export type Fate =
  | { readonly kind: 'finish' }
  | { readonly kind: 'close' | 'reset'; readonly when: Moment; readonly later: boolean };

export interface Part {
  readonly bytes: number;
  readonly fate: Fate;
}

/** `echo`: the server sends what it receives. `relay`: a server in between passes everything on. */
export type Mode = 'direct' | 'echo' | 'relay';

export interface Script {
  readonly id: number;
  readonly tls: boolean;
  readonly mode: Mode;
  /** In the namespace with tiny socket buffers. */
  readonly tiny: boolean;
  /** The client is a socket of Node. */
  readonly nodeClient: boolean;
  readonly client: Part;
  readonly server: Part;
}

export function scriptOf(id: number): Script {
  const random = generator(id);
  const tls = random() < 0.5;
  const tiny = random() < 0.5;
  const nodeClient = !tiny && random() < 0.2;
  const mode = random() < 0.25 ? 'echo' : random() < 0.25 && !tls ? 'relay' : 'direct';
  // Rarely more than the smallest buffers hold several times over.
  const size = () => Math.floor(random() ** 4 * (tiny ? 30_000 : 200_000));
  const client = { bytes: size(), fate: fateOf(random, 'client') };
  const server = { bytes: size(), fate: fateOf(random, 'server') };
  return { id, tls, mode, tiny, nodeClient, client, server };
}

const MOMENTS = ['open', 'secured', 'received', 'sent', 'drained', 'ended', 'shutdown'] as const;

export function fateOf(random: () => number, role: 'client' | 'server'): Fate {
  if (random() < 0.5) return { kind: 'finish' };
  const kind = random() < 0.5 ? 'close' : 'reset';
  const later = random() < 0.3;
  if (role === 'client' && random() < 0.1) return { kind, when: { at: 'connecting' }, later };
  const at = MOMENTS[Math.floor(random() * MOMENTS.length)]!;
  const when = at === 'received' || at === 'sent' ? { at, bytes: Math.floor(random() ** 4 * 40_000) } : { at };
  return { kind, when, later };
}

/** Numbers in [0, 1) that depend on the seed alone (mulberry32). */
export function generator(seed: number): () => number {
  let state = Math.imul(seed + 1, 0x9e3779b1);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const LENGTH = 1 << 20;
const table = Buffer.alloc(2 * LENGTH);
const random = generator(1);
for (let at = 0; at < LENGTH; at++) table[at] = random() * 256;
table.copyWithin(LENGTH, 0, LENGTH);

/** What an end sends: bytes that differ from those at every other place, and from those of other connections. */
export function content(id: number, role: 'client' | 'server', from: number, length: number): Buffer {
  const start = (Math.imul(id, 7919) + (role === 'server' ? LENGTH >> 1 : 0) + from) & (LENGTH - 1);
  return table.subarray(start, start + length);
}

/** The first bytes of a client, before its content. */
export const GREETING_SIZE = 8;

export function greeting(id: number, passedOn: boolean): Buffer {
  const bytes = Buffer.from('culvert\0');
  bytes[0] = passedOn ? 1 : 0;
  bytes.writeUInt32BE(id, 4);
  return bytes;
}

export interface Greeting {
  readonly id: number;
  /** It wants to be passed on to another server. */
  readonly passedOn: boolean;
}

export function readGreeting(bytes: Buffer): Greeting | null {
  if (bytes.length !== GREETING_SIZE || bytes.toString('latin1', 1, 4) !== 'ulv') return null;
  return { id: bytes.readUInt32BE(4), passedOn: bytes[0] === 1 };
}
