import { readSync } from 'node:fs';
import { closeFd, openPacketSocket } from '../../native/netns.ts';
import { formatSocketAddress, ipFromBytes, type SocketAddress } from '../netns/address.ts';

/** Bytes that one end of a connection sent, as they passed a link. */
export interface CapturedStream {
  readonly sender: SocketAddress;
  readonly receiver: SocketAddress;
  /** In order, without repetitions; up to the first byte that the capture has missed. */
  readonly bytes: Buffer;
}

/** Reads everything that passes one end of a link. */
export interface LinkCapture {
  /** What has passed so far. */
  streams(): CapturedStream[];
  close(): void;
}

/** Looks at an interface inside a namespace. @throws 'ENODEV', 'EPERM' */
export function captureLink(netns: number, networkInterface: string): LinkCapture {
  const fd = openPacketSocket(netns, networkInterface);
  const frame = Buffer.allocUnsafe(MAX_FRAME);
  const streams = new Map<string, Segments>();
  const timer = setInterval(drain, DRAIN_MS);
  timer.unref();

  return {
    streams() {
      drain();
      return [...streams.values()].map(assemble);
    },
    close() {
      clearInterval(timer);
      closeFd(fd);
    },
  };

  function drain(): void {
    for (;;) {
      let length: number;
      try {
        length = readSync(fd, frame);
      } catch {
        // EAGAIN: nothing is left to read.
        return;
      }
      const segment = readTcpSegment(frame.subarray(0, length));
      if (segment === null) continue;
      const { sender, receiver, sequence, payload, opens } = segment;
      const key = `${formatSocketAddress(sender)} ${formatSocketAddress(receiver)}`;
      let stream = streams.get(key);
      if (stream === undefined) {
        stream = { sender, receiver, start: opens ? sequence + 1 : sequence, parts: [] };
        streams.set(key, stream);
      }
      if (payload.length > 0) stream.parts.push({ sequence, payload: Buffer.from(payload) });
    }
  }
}

interface Segments {
  readonly sender: SocketAddress;
  readonly receiver: SocketAddress;
  /** Sequence number of the first byte. */
  readonly start: number;
  readonly parts: { readonly sequence: number; readonly payload: Buffer }[];
}

interface TcpSegment {
  readonly sender: SocketAddress;
  readonly receiver: SocketAddress;
  readonly sequence: number;
  readonly payload: Buffer;
  /** It carries SYN, which takes one sequence number. */
  readonly opens: boolean;
}

/** Segmentation is left to hardware that a veth link does not have, so a frame may hold 64 KiB of payload and its headers. */
const MAX_FRAME = 70_000;
/** Often enough that the socket's buffer does not overflow in a demo. */
const DRAIN_MS = 20;

const ETHERNET_HEADER = 14;
const IPV4 = 0x0800;
const IPV6 = 0x86dd;
const IPV6_HEADER = 40;
const TCP = 6;
const SYN = 2;

/** Null for anything but TCP over IPv4 or IPv6 without extension headers. */
function readTcpSegment(frame: Buffer): TcpSegment | null {
  if (frame.length < ETHERNET_HEADER + 20) return null;
  const type = frame.readUInt16BE(12);
  const packet = frame.subarray(ETHERNET_HEADER);
  if (type === IPV4 && packet[9] === TCP) {
    const header = (packet[0]! & 15) * 4;
    return readTcp(
      packet.subarray(header, packet.readUInt16BE(2)),
      ip(packet.subarray(12, 16)),
      ip(packet.subarray(16, 20)),
    );
  }
  if (type === IPV6 && packet[6] === TCP) {
    const end = IPV6_HEADER + packet.readUInt16BE(4);
    return readTcp(packet.subarray(IPV6_HEADER, end), ip(packet.subarray(8, 24)), ip(packet.subarray(24, 40)));
  }
  return null;
}

function readTcp(tcp: Buffer, source: string, destination: string): TcpSegment | null {
  if (tcp.length < 20) return null;
  return {
    sender: { ip: source, port: tcp.readUInt16BE(0) },
    receiver: { ip: destination, port: tcp.readUInt16BE(2) },
    sequence: tcp.readUInt32BE(4),
    payload: tcp.subarray((tcp[12]! >> 4) * 4),
    opens: (tcp[13]! & SYN) !== 0,
  };
}

function assemble({ sender, receiver, start, parts }: Segments): CapturedStream {
  // Sequence numbers wrap at 2^32.
  const positioned = parts.map(({ sequence, payload }) => ({ at: (sequence - start) >>> 0, payload }));
  positioned.sort((a, b) => a.at - b.at);
  const pieces: Buffer[] = [];
  let length = 0;
  for (const { at, payload } of positioned) {
    if (at > length) break;
    const fresh = payload.subarray(length - at);
    pieces.push(fresh);
    length += fresh.length;
  }
  return { sender, receiver, bytes: Buffer.concat(pieces) };
}

/** Of 4 or 16 bytes. */
function ip(bytes: Buffer): string {
  return ipFromBytes(bytes)!;
}
