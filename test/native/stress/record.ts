import assert from 'node:assert/strict';
import type { Script } from './script.ts';

/** How an end of a connection saw it. */
export interface Seen {
  readonly id: number;
  readonly role: 'client' | 'server';
  sent: number;
  received: number;
  /** It has said that it sends no more. */
  shut: boolean;
  /** What it was told of the other end; null when it gave up before it was told anything. */
  told: 'ended' | 'failed' | null;
  error: string;
  /** How it went away. */
  left: 'finished' | 'closed' | 'reset' | 'failed' | null;
}

export function newSeen(id: number, role: 'client' | 'server'): Seen {
  return { id, role, sent: 0, received: 0, shut: false, told: null, error: '', left: null };
}

/** Fails unless what both ends have seen is one story. */
export function assertConsistent(script: Script, client: Seen, server: Seen | undefined): void {
  const story = () => JSON.stringify({ script, client, server });
  if (server === undefined) {
    assert.ok(client.left === 'closed' || client.left === 'reset', `never arrived: ${story()}`);
    return;
  }
  for (const [own, other] of [
    [client, server],
    [server, client],
  ] as const) {
    assert.notEqual(own.left, null, `still open: ${story()}`);
    if (own.told === 'ended' && own === client && script.nodeClient && other.left === 'reset') {
      // Node's sockets take a reset for an end when a write has met it first.
    } else if (own.told === 'ended' && own === server && script.nodeClient && other.left === 'reset' && other.shut) {
      // Node cannot reset a socket behind its own end; closed instead, it forgets what it had not written yet.
    } else if (own.told === 'ended') {
      assert.ok(other.shut, `an end that nobody made: ${story()}`);
      assert.equal(own.received, other.sent, `an end before the last byte: ${story()}`);
    } else if (own.told === 'failed') {
      assert.ok(other.left === 'closed' || other.left === 'reset', `a failure without a cause: ${story()}`);
    } else {
      assert.ok(own.left === 'closed' || own.left === 'reset', `left without a reason: ${story()}`);
    }
    assert.ok(own.received <= other.sent, `more than was sent: ${story()}`);
    if (own.left === 'finished') {
      assert.equal(own.told, 'ended', story());
      assert.equal(own.sent, script.mode === 'echo' && own === server ? client.sent : script[own.role].bytes, story());
    }
  }
}

/** Puts together what the two ends of each connection have seen, and judges it. */
export class Ledger {
  /** How ends went away, and what they were told of errors, by number of ends. */
  readonly left = { finished: 0, closed: 0, reset: 0, failed: 0 };
  readonly errors: Record<string, number> = {};
  /** Connections of which both ends have been seen. */
  judged = 0;
  readonly #scriptOf: (id: number) => Script;
  readonly #half = new Map<number, Seen>();

  constructor(scriptOf: (id: number) => Script) {
    this.#scriptOf = scriptOf;
  }

  /** @throws AssertionError when it contradicts what the other end has seen */
  take(seen: Seen): void {
    this.left[seen.left!]++;
    if (seen.error !== '') this.errors[seen.error] = (this.errors[seen.error] ?? 0) + 1;
    const other = this.#half.get(seen.id);
    if (other === undefined) {
      this.#half.set(seen.id, seen);
      return;
    }
    this.#half.delete(seen.id);
    this.judged++;
    const [client, server] = seen.role === 'client' ? [seen, other] : [other, seen];
    assertConsistent(this.#scriptOf(seen.id), client, server);
  }

  /** Judges the clients that met no server, when all ends are gone. Returns how many they are. */
  judgeUnmet(): number {
    for (const seen of this.#half.values()) {
      assert.equal(seen.role, 'client', JSON.stringify(seen));
      assertConsistent(this.#scriptOf(seen.id), seen, undefined);
    }
    return this.#half.size;
  }
}
