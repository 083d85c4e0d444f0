/**
 * SOCK_SEQPACKET sockets with descriptor passing (SCM_RIGHTS), the transport of ZDS.
 *
 * A received descriptor belongs to whoever gets the packet. A packet that nobody gets, or that was cut, has its
 * descriptors closed here. A sent descriptor stays with the sender: the kernel duplicates it.
 */
import { addon } from './load.ts';

/** What the agent and istio's node agent both read with: longer packets are cut (spec §1.1). */
const DEFAULT_PACKET_SIZE = 1024;

export type Packet =
  | { readonly kind: 'whole'; readonly payload: Buffer; readonly descriptors: readonly number[] }
  /** Payload or descriptors did not fit. `payload` is what did. */
  | { readonly kind: 'truncated'; readonly payload: Buffer };

export interface SeqPacketConnection {
  /**
   * Starts delivery. `onEnd` comes once: with null when the peer closed, else with the name of the errno. The socket is
   * closed by then. It does not come after `close()`.
   */
  start(onPacket: (packet: Packet) => void, onEnd: (code: string | null) => void): void;
  /**
   * Sends one packet, which must not be empty: an empty one reads as the end of the stream.
   * @throws 'EPIPE' when the peer has closed, 'EAGAIN' when it does not read, 'EMSGSIZE', 'EBADF'
   */
  send(payload: Uint8Array, descriptors: readonly number[]): void;
  /** Closes at once; the peer sees the end. Harmless when closed already. */
  close(): void;
}

export interface SeqPacketListener {
  /** Closes and removes the socket file, unless it has been replaced by another process. */
  close(): void;
}

export interface SeqPacketOptions {
  /** Longest packet that is received whole, in bytes, 1 … 1 MiB. */
  readonly packetSize?: number;
}

/** Connects at once. @throws 'ENOENT', 'ECONNREFUSED', 'EACCES', 'EAGAIN' (backlog full), 'ENAMETOOLONG' (over 107 bytes) */
export function connectSeqPacket(path: string, options: SeqPacketOptions = {}): SeqPacketConnection {
  return wrap(SeqPacket.connect(path, options.packetSize ?? DEFAULT_PACKET_SIZE));
}

/**
 * Listens on a socket file, replacing a stale one; any other kind of file in its place is an error ('EADDRINUSE').
 * `onConnection` gets each connection, not started. `onError` hears of a failed accept (for want of descriptors or
 * memory); accepting goes on by itself after a pause.
 */
export function listenSeqPacket(
  path: string,
  onConnection: (connection: SeqPacketConnection) => void,
  onError: (code: string) => void,
  options: SeqPacketOptions & { readonly mode?: number; readonly backlog?: number } = {},
): SeqPacketListener {
  const { mode = 0o600, backlog = 16, packetSize = DEFAULT_PACKET_SIZE } = options;
  const listener = SeqPacket.listen(path, mode, backlog, packetSize);
  let resume: NodeJS.Timeout | null = null;
  listener.start(
    (connection) => onConnection(wrap(connection as NativeSeqPacket)),
    (code) => {
      resume = setTimeout(() => listener.resume(), ACCEPT_PAUSE_MS);
      onError(code ?? 'EIO');
    },
  );
  return {
    close() {
      if (resume !== null) clearTimeout(resume);
      listener.close();
    },
  };
}

/** Long enough not to spin while descriptors are short, short against the 5 s that peers wait. */
const ACCEPT_PAUSE_MS = 100;

interface NativeSeqPacket {
  start(
    onItem: (item: NativeSeqPacket | Buffer, truncated?: boolean) => void,
    onEnd: (code: string | null) => void,
  ): void;
  resume(): void;
  send(payload: Uint8Array, descriptors: readonly number[]): void;
  takeDescriptors(): number[];
  close(): void;
}

const { SeqPacket } = addon as {
  SeqPacket: {
    connect(path: string, packetSize: number): NativeSeqPacket;
    listen(path: string, mode: number, backlog: number, packetSize: number): NativeSeqPacket;
  };
};

function wrap(socket: NativeSeqPacket): SeqPacketConnection {
  return {
    start(onPacket, onEnd) {
      socket.start((item, truncated) => {
        const payload = item as Buffer;
        if (truncated) onPacket({ kind: 'truncated', payload });
        else onPacket({ kind: 'whole', payload, descriptors: socket.takeDescriptors() });
      }, onEnd);
    },
    send: (payload, descriptors) => socket.send(payload, descriptors),
    close: () => socket.close(),
  };
}
