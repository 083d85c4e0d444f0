/**
 * The native side of namespaces and sockets, each function declared once.
 *
 * Functions throw an `Error` whose `code` is the name of the errno ('EADDRINUSE', 'EPERM' …); namespaces add
 * 'NOT_A_NETNS'. Descriptors are plain numbers and belong to the caller. They are valid in every thread of the process.
 */
import { addon } from './load.ts';

/** Stands for a namespace descriptor: the socket is made in the namespace of the process. */
export const OWN_NETNS = -1;

export interface KeepAlive {
  /** Idle time before the first probe, in seconds. */
  readonly time: number;
  /** Between probes, in seconds. */
  readonly interval: number;
  /** Probes without an answer after which the connection is dead. */
  readonly retries: number;
}

/** Socket options of one connection. TCP_NODELAY is always set. */
export interface StreamOptions {
  /** SO_MARK; 0 leaves it alone. */
  readonly mark: number;
  readonly keepalive: KeepAlive | null;
  /** TCP_USER_TIMEOUT in milliseconds; 0 leaves the system's default. */
  readonly userTimeoutMs: number;
}

/** Stream options of a listener are inherited by the connections it accepts. */
export interface ListenOptions extends StreamOptions {
  readonly reusePort: boolean;
  /** Whether IP_TRANSPARENT is set, and whether its refusal is an error. */
  readonly transparent: 'no' | 'try' | 'must';
  readonly backlog: number;
  /** On '::': accept IPv4 as well, and fall back to '0.0.0.0' where the kernel has no IPv6. */
  readonly dualStack: boolean;
}

export interface Listener {
  readonly fd: number;
  /** IP_TRANSPARENT is set. */
  readonly transparent: boolean;
  /** False when SO_REUSEPORT was asked for and refused. */
  readonly reusePort: boolean;
}

export interface Connecting {
  /** Non-blocking; the connection is being made. */
  readonly fd: number;
  /** Why the source address could not be taken over (errno name); null when it was, or was not asked for. */
  readonly spoofError: string | null;
}

export interface AcceptedAddress {
  /** Canonical; a link-local IPv6 address ends in `%` and the interface index. */
  readonly ip: string;
  readonly port: number;
}

export interface AcceptedSocket {
  readonly fd: number;
  readonly peer: AcceptedAddress;
  readonly destination: AcceptedAddress;
  /** False when conntrack knew no original destination: `destination` is then the local address. */
  readonly original: boolean;
}

/** What tells one namespace from another as long as both live. */
export interface NetnsInode {
  readonly ino: number;
  readonly dev: number;
}

/** @throws 'NOT_A_NETNS' for any other kind of descriptor. */
export const inspectNetns: (fd: number) => NetnsInode = native('inspectNetns');

/** Opens a namespace file such as `/run/netns/NAME` or `/proc/PID/ns/net`. @throws 'NOT_A_NETNS', or the errno of open(2). */
export const openNetns: (path: string) => number = native('openNetns');

/** Tries what every pod will need: entering a namespace and marking a socket (spec §1.8). @throws 'EPERM' */
export const checkCapabilities: (mark: number) => void = native('checkCapabilities');

/** Makes a listening socket inside a namespace. @throws 'EADDRINUSE', 'EACCES', … */
export function listenTcp(netns: number, ip: string, port: number, options: ListenOptions): Listener {
  const { mark, keepalive, userTimeoutMs, reusePort, dualStack, transparent, backlog } = options;
  return rawListenTcp(
    netns,
    ip,
    port,
    mark,
    keepalive?.time ?? 0,
    keepalive?.interval ?? 0,
    keepalive?.retries ?? 0,
    userTimeoutMs,
    reusePort,
    dualStack,
    TRANSPARENT[transparent],
    backlog,
  );
}

/**
 * Starts a connection out of a namespace. With `sourceIp` the connection comes from that address, which need not be an
 * address of the namespace (spec §2.3); one equal to `ip` is ignored.
 * @throws what connect(2) says at once, e.g. 'ENETUNREACH'
 */
export function connectTcp(
  netns: number,
  ip: string,
  port: number,
  sourceIp: string | null,
  options: StreamOptions,
): Connecting {
  const { mark, keepalive, userTimeoutMs } = options;
  return rawConnectTcp(
    netns,
    ip,
    port,
    sourceIp,
    mark,
    keepalive?.time ?? 0,
    keepalive?.interval ?? 0,
    keepalive?.retries ?? 0,
    userTimeoutMs,
  );
}

/**
 * Takes one waiting connection, or null when none waits. With `original` the destination is the one that the client
 * dialled before the capture rules redirected it.
 */
export const acceptTcp: (listenFd: number, original: boolean) => AcceptedSocket | null = native('acceptTcp');

/** Makes a UDP socket inside a namespace. A refused SO_REUSEPORT is an error here (spec §2.1). */
export const bindUdp: (netns: number, ip: string, port: number, mark: number, reusePort: boolean) => number =
  native('bindUdp');

/**
 * A non-blocking socket on which each read returns one Ethernet frame that passed the interface, in either direction.
 * Frames that nobody reads in time are lost. @throws 'ENODEV', 'EPERM'
 */
export const openPacketSocket: (netns: number, networkInterface: string) => number = native('openPacketSocket');

/** Makes closing the descriptor send RST and drop what is unsent. */
export const setSoLinger0: (fd: number) => void = native('setSoLinger0');

/** @throws 'EBADF' */
export const closeFd: (fd: number) => void = native('closeFd');

/** A second, close-on-exec descriptor of the same file. */
export const dupFd: (fd: number) => number = native('dupFd');

/** From now on there is no core file of this process, and nobody without CAP_SYS_PTRACE reads its memory: it holds keys. */
export const denyDumps: () => void = native('denyDumps');

/** Raises the limit of open descriptors to the hard limit and returns it. */
export const raiseNofileLimit: () => number = native('raiseNofileLimit');

const TRANSPARENT = { no: 0, try: 1, must: 2 } as const;

const rawListenTcp: (
  netns: number,
  ip: string,
  port: number,
  mark: number,
  keepaliveTime: number,
  keepaliveInterval: number,
  keepaliveRetries: number,
  userTimeoutMs: number,
  reusePort: boolean,
  dualStack: boolean,
  transparent: number,
  backlog: number,
) => Listener = native('listenTcp');

const rawConnectTcp: (
  netns: number,
  ip: string,
  port: number,
  sourceIp: string | null,
  mark: number,
  keepaliveTime: number,
  keepaliveInterval: number,
  keepaliveRetries: number,
  userTimeoutMs: number,
) => Connecting = native('connectTcp');

function native<Function>(name: string): Function {
  return (addon as Record<string, Function>)[name]!;
}
