/** Where a relay reports the bytes it has carried, as they are carried. */
export interface ByteCounter {
  /** Bytes that came from the client. */
  received(bytes: number): void;
  /** Bytes that came from the server. */
  sent(bytes: number): void;
}

/** How a relay ended. */
export type RelayEnd =
  | { readonly kind: 'complete' }
  /** One side broke: the other has been told with a reset. `detail` is for the log. */
  | { readonly kind: 'broken'; readonly side: 'client' | 'server'; readonly detail: string };

export const COMPLETE: RelayEnd = { kind: 'complete' };

/** Whom a relay serves: a proxied connection. */
export interface RelayOwner extends ByteCounter {
  relayEnded(end: RelayEnd): void;
}
