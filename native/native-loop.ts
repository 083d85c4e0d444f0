import type { Peer, TcpInfo, TlsMaterial } from './channel-handler.ts';
import { addon } from './load.ts';

/** The loop as the addon makes it (loop-binding.cc); `ChannelLoop` says what each function does. */
export interface NativeLoop {
  readonly memory: ArrayBuffer;
  readonly scratchSize: number;
  readonly slabSize: number;
  attach(fd: number, connecting: boolean): number;
  attachMemory(): number;
  deliver(channel: number, offset: number, length: number): void;
  deliverEnd(channel: number): void;
  deliverReset(channel: number): void;
  take(channel: number, offset: number, room: number): number;
  connect(netns: number, ip: string, port: number, source: string | null): number;
  write(channel: number, offset: number, length: number): number;
  writeFrame(channel: number, stream: number, flags: number, offset: number, length: number): number;
  flush(channel: number): number;
  resume(channel: number, limit: number): void;
  unread(channel: number, offset: number, length: number): void;
  shutdown(channel: number): void;
  close(channel: number): boolean;
  reset(channel: number): void;
  startTls(
    channel: number,
    context: number,
    server: boolean,
    identities: readonly string[],
    trustDomain: string,
    logSecrets: boolean,
  ): string | null;
  errorText(channel: number): string;
  peer(channel: number): Peer | null;
  tcpInfo(channel: number): TcpInfo | null;
  localPort(channel: number): number;
  detach(channel: number): number;
  listen(fd: number, original: boolean): number;
  closeListener(listener: number): void;
  resumeListener(listener: number): void;
  newTlsContext(material: Omit<TlsMaterial, 'key'> & { readonly key: Uint8Array }): number;
  freeTlsContext(context: number): void;
  setRevocations(lists: Uint8Array): void;
  setStreamOptions(
    mark: number,
    keepalive: boolean,
    time: number,
    interval: number,
    retries: number,
    userTimeoutMs: number,
  ): void;
  count(): number;
  trim(): void;
  releaseBuffers(): void;
  stop(): void;
}

/** What the addon calls. */
export interface NativeCallbacks {
  data(channel: number, offset: number, length: number): number;
  event(channel: number, kind: number, argument: number): void;
  accept(
    listener: number,
    channel: number,
    peerIp: string,
    peerPort: number,
    destinationIp: string,
    destinationPort: number,
    original: boolean,
  ): void;
}

/** The kinds of events, as in loop.h. From OUTPUT on they are for the carrier of a memory channel. */
export const EventKind = {
  CONNECTED: 0,
  HANDSHAKE: 1,
  END: 2,
  DRAINED: 3,
  ERROR: 4,
  CLOSED: 5,
  OUTPUT: 6,
  OUTPUT_END: 7,
  GONE: 8,
} as const;

/** Arguments of ERROR that are no errno. */
export const TLS_ERROR = 10_000;
export const REVOKED_ERROR = 10_001;

export function createNativeLoop(callbacks: NativeCallbacks): NativeLoop {
  return (addon as { createLoop(callbacks: NativeCallbacks): NativeLoop }).createLoop(callbacks);
}
