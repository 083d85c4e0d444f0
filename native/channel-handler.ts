/** What happens on channels and listeners of a loop (channel.ts), and what is known of them. */
import type { KeyObject } from 'node:crypto';
import type { CulvertError } from '../src/errors.ts';

/** Identifies a channel of one loop; 0 is none. An id is not used again soon, calls on a closed one do nothing. */
export type ChannelId = number;

/** What happens on a channel. Methods are called from the loop, never from inside one of its own methods. */
export interface ChannelHandler {
  /**
   * Bytes arrived in `memory`. Returns how many the next read may take at most; 0 pauses reading until `resume`. With
   * TLS whole records are read: any limit but 0 stands for NO_LIMIT.
   */
  data(offset: number, length: number): number;
  /** The connect of this channel succeeded. */
  connected(): void;
  /** The TLS handshake is done; `peer` tells who the other side is. */
  secured(): void;
  /** The peer will send no more (FIN or close_notify). */
  ended(): void;
  /** The queue that `flush` reported got shorter; `queued` bytes are left. */
  drained(queued: number): void;
  /** The connection is broken; `close` or `reset` is still due. */
  failed(error: ChannelError): void;
  /** A close that had to wait for queued bytes is done. */
  closed(): void;
}

/** What a memory channel has instead of a socket. Called from the loop, never from inside one of its methods. */
export interface Carrier {
  /** `queued` bytes wait to be fetched with `take`. */
  output(queued: number): void;
  /** Everything was taken, and nothing follows (FIN). */
  outputEnded(): void;
  /** The channel is gone; `reset` tells that it was not closed in order. */
  gone(reset: boolean): void;
}

/** Ignores everything and reads nothing: for a channel that gets its handler before the turn ends. */
export const NO_HANDLER: ChannelHandler = {
  data: () => 0,
  connected() {},
  secured() {},
  ended() {},
  drained() {},
  failed() {},
  closed() {},
};

/** Read limit that stands for "as much as fits". */
export const NO_LIMIT = 1 << 30;

export interface Peer {
  /** The SPIFFE id that was verified. */
  readonly identity: string;
  readonly group: string;
  readonly suite: string;
}

export interface TcpInfo {
  readonly state: number;
  readonly rttMicros: number;
  readonly rttVarianceMicros: number;
  readonly congestionWindow: number;
  readonly unacknowledged: number;
  readonly retransmits: number;
}

export interface TlsMaterial {
  /** Leaf first, then intermediates; PEM. */
  readonly chainPem: string;
  readonly key: KeyObject;
  readonly rootsPem: string;
  /** OpenSSL group list, e.g. `*X25519MLKEM768:*X25519:P-256` (`*` = a key share is sent at once). */
  readonly groups: string;
  /** Appends the session secrets to this file (SSLKEYLOGFILE format); '' for none. */
  readonly keyLogPath: string;
  /** TLS 1.2 is permitted besides 1.3. */
  readonly tls12: boolean;
}

/** An accepted connection. Its channel has no handler yet and is paused: `adopt` or `reset` it in the same turn. */
export interface Accepted {
  readonly channel: ChannelId;
  readonly peerIp: string;
  readonly peerPort: number;
  /** Where the client wanted to go (before REDIRECT) or, for a listener without that, this end's address. */
  readonly destinationIp: string;
  readonly destinationPort: number;
  /** False when the original destination was asked for but there was none. */
  readonly original: boolean;
}

export interface ListenerHandler {
  accepted(connection: Accepted): void;
  /** accept(2) failed (out of descriptors or memory): the listener rests until `resumeListener(listener)`. */
  failed(error: ChannelError, listener: number): void;
}

/** An errno name such as ECONNRESET, or TLS. */
export type ChannelError = CulvertError;
