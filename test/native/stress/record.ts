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
