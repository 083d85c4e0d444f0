/**
 * IP addresses as canonical text, and socket addresses.
 *
 * Canonical means: dotted decimal for IPv4, RFC 5952 text for IPv6 (lower case, longest run of zeros compressed), and an
 * IPv4-mapped IPv6 address becomes the IPv4 address. Two addresses are equal exactly when their canonical texts are equal.
 */
export interface SocketAddress {
  readonly ip: string;
  /** 0..65535 */
  readonly port: number;
}

/** A canonical address as numbers. IPv4 uses `words[0]` only; IPv6 all four, most significant first. Unsigned 32 bit. */
export interface IpWords {
  readonly family: 4 | 6;
  readonly words: readonly [number, number, number, number];
}

/** An address block. `words` is masked: the bits after `length` are zero. */
export interface Cidr extends IpWords {
  /** 0..32 for IPv4, 0..128 for IPv6 */
  readonly length: number;
}

/** Reads `ip:port` or `[v6]:port`; null when the text is neither. The address is made canonical. */
export function parseSocketAddress(text: string): SocketAddress | null {
  const colon = text.lastIndexOf(':');
  if (colon <= 0) return null;
  const port = parsePort(text.slice(colon + 1));
  if (port === null) return null;
  const bracketed = text.charCodeAt(0) === OPEN_BRACKET;
  if (bracketed !== (text.charCodeAt(colon - 1) === CLOSE_BRACKET)) return null;
  const host = bracketed ? text.slice(1, colon - 1) : text.slice(0, colon);
  // Brackets belong to IPv6 only, and IPv6 needs them (RFC 3986 §3.2.2).
  if (host.includes(':') !== bracketed) return null;
  const ip = canonicalIp(host);
  return ip === null ? null : { ip, port };
}

/** `ip:port`, with brackets around IPv6. */
export function formatSocketAddress(address: SocketAddress): string {
  return isIpv4(address.ip) ? `${address.ip}:${address.port}` : `[${address.ip}]:${address.port}`;
}

/** Reads a decimal port 0..65535 without sign, spaces or leading zeros; null otherwise. */
export function parsePort(text: string): number | null {
  if (text.length === 0 || text.length > 5 || (text.length > 1 && text.charCodeAt(0) === ZERO)) return null;
  let port = 0;
  for (let at = 0; at < text.length; at++) {
    const digit = text.charCodeAt(at) - ZERO;
    if (digit < 0 || digit > 9) return null;
    port = port * 10 + digit;
  }
  return port <= 65535 ? port : null;
}

/** The canonical text of an address, or null when the text is no address. Zone ids (`%eth0`) are refused. */
export function canonicalIp(text: string): string | null {
  const words = parseIp(text);
  return words === null ? null : formatIp(words);
}

/** Tells the family of a canonical address. */
export function isIpv4(canonical: string): boolean {
  return !canonical.includes(':');
}

/** True for 127.0.0.0/8 and ::1. Takes a canonical address. */
export function isLoopback(canonical: string): boolean {
  return canonical === '::1' || (canonical.startsWith('127.') && isIpv4(canonical));
}

/** Reads an address into numbers; IPv4-mapped IPv6 becomes IPv4. Null when the text is no address. */
export function parseIp(text: string): IpWords | null {
  if (!text.includes(':')) {
    const word = parseIpv4(text);
    return word === null ? null : { family: 4, words: [word, 0, 0, 0] };
  }
  const groups = parseIpv6Groups(text);
  return groups === null ? null : fromGroups(groups);
}

/** Reads 4 or 16 bytes in network order (the form used by xDS), from `start` to `end`; null for any other length. */
export function ipFromBytes(bytes: Uint8Array, start = 0, end = bytes.length): string | null {
  if (end - start === 4) return `${bytes[start]}.${bytes[start + 1]}.${bytes[start + 2]}.${bytes[start + 3]}`;
  if (end - start !== 16) return null;
  const groups: number[] = [];
  for (let at = start; at < end; at += 2) groups.push((bytes[at]! << 8) | bytes[at + 1]!);
  return formatIp(fromGroups(groups));
}

/** The canonical text of an IPv4 address given as a number, signed or not. */
export function formatIpv4(word: number): string {
  return `${word >>> 24}.${(word >>> 16) & 255}.${(word >>> 8) & 255}.${word & 255}`;
}

/** The canonical text of an address given as numbers. */
export function formatIp({ family, words }: IpWords): string {
  if (family === 4) return formatIpv4(words[0]);
  const groups = words.flatMap((word) => [word >>> 16, word & 0xffff]);
  const [start, length] = longestZeroRun(groups);
  const hex = groups.map((group) => group.toString(16));
  if (length < 2) return hex.join(':');
  return `${hex.slice(0, start).join(':')}::${hex.slice(start + length).join(':')}`;
}

/**
 * Reads `ip/length`, or a bare address as a block of one. Host bits are allowed and ignored, as in the incumbent.
 * Null when the text is no block.
 */
export function parseCidr(text: string): Cidr | null {
  const slash = text.indexOf('/');
  const ip = parseIp(slash < 0 ? text : text.slice(0, slash));
  if (ip === null) return null;
  const bits = ip.family === 4 ? 32 : 128;
  if (slash < 0) return maskTo(ip, bits);
  const given = parsePort(text.slice(slash + 1));
  if (given === null) return null;
  // The length of an IPv4-mapped block counts the 96 bits of the mapping.
  const length = ip.family === 4 && text.includes(':') ? given - 96 : given;
  return length < 0 || length > bits ? null : maskTo(ip, length);
}

/** The block of an address of 4 or 16 bytes and the number of its leading bits; null when they do not go together. */
export function cidrFromBytes(bytes: Uint8Array, length: number): Cidr | null {
  const ip = ipFromBytes(bytes);
  if (ip === null || length > bytes.length * 8) return null;
  // The length of an IPv4-mapped block counts the 96 bits of the mapping.
  const mapped = bytes.length === 16 && isIpv4(ip) ? 96 : 0;
  return length < mapped ? null : maskTo(parseIp(ip)!, length - mapped);
}

/** The canonical text of a block, always with its length. */
export function formatCidr(cidr: Cidr): string {
  return `${formatIp(cidr)}/${cidr.length}`;
}

/** The block of `length` leading bits that holds the address. `length` must suit the family. */
export function maskTo(ip: IpWords, length: number): Cidr {
  const [a, b, c, d] = ip.words;
  return {
    family: ip.family,
    words: [
      (a & prefixMask(length)) >>> 0,
      (b & prefixMask(length - 32)) >>> 0,
      (c & prefixMask(length - 64)) >>> 0,
      (d & prefixMask(length - 96)) >>> 0,
    ],
    length,
  };
}

/** True when the block holds the address. A block of one family holds no address of the other. */
export function cidrContains(cidr: Cidr, ip: IpWords): boolean {
  if (cidr.family !== ip.family) return false;
  for (let at = 0, left = cidr.length; left > 0; at++, left -= 32) {
    if (((cidr.words[at]! ^ ip.words[at]!) & prefixMask(left)) !== 0) return false;
  }
  return true;
}

const ZERO = 0x30;
const DOT = 0x2e;
const COLON = 0x3a;
const LOWER_A = 0x61;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;

/** A 32 bit mask of the leading `length` bits; everything below 1 gives 0, above 31 gives all ones. */
function prefixMask(length: number): number {
  if (length <= 0) return 0;
  return length >= 32 ? -1 : -1 << (32 - length);
}

/** Reads dotted decimal into 32 bits, 0..0xffffffff. Null for anything else. */
export function parseIpv4(text: string): number | null {
  if (text.length < 7 || text.length > 15) return null;
  let word = 0;
  let octet = 0;
  let digits = 0;
  let dots = 0;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === DOT) {
      if (digits === 0 || ++dots > 3) return null;
      word = word * 256 + octet;
      octet = 0;
      digits = 0;
      continue;
    }
    const digit = code - ZERO;
    // A leading zero is refused: some resolvers read it as octal.
    if (digit < 0 || digit > 9 || (digits > 0 && octet === 0)) return null;
    octet = octet * 10 + digit;
    digits++;
    if (octet > 255) return null;
  }
  return dots === 3 && digits > 0 ? word * 256 + octet : null;
}

function parseIpv6Groups(text: string): number[] | null {
  if (text.length > 45) return null;
  const gap = text.indexOf('::');
  if (gap < 0) {
    const groups = parseGroups(text, true);
    return groups?.length === 8 ? groups : null;
  }
  if (text.indexOf('::', gap + 1) >= 0) return null;
  const head = gap === 0 ? [] : parseGroups(text.slice(0, gap), false);
  const tail = gap + 2 === text.length ? [] : parseGroups(text.slice(gap + 2), true);
  if (head === null || tail === null || head.length + tail.length > 7) return null;
  return [...head, ...new Array<number>(8 - head.length - tail.length).fill(0), ...tail];
}

function parseGroups(text: string, mayEndInIpv4: boolean): number[] | null {
  const groups: number[] = [];
  let group = 0;
  let digits = 0;
  let start = 0;
  for (let at = 0; at <= text.length; at++) {
    const code = at === text.length ? COLON : text.charCodeAt(at);
    if (code === COLON) {
      if (digits === 0) return null;
      groups.push(group);
      group = 0;
      digits = 0;
      start = at + 1;
    } else if (code === DOT) {
      const word = mayEndInIpv4 ? parseIpv4(text.slice(start)) : null;
      if (word === null) return null;
      groups.push(word >>> 16, word & 0xffff);
      return groups;
    } else {
      const digit = hexDigit(code);
      if (digit < 0 || ++digits > 4) return null;
      group = group * 16 + digit;
    }
  }
  return groups;
}

/** -1 for what is none. */
function hexDigit(code: number): number {
  if (code >= ZERO && code < ZERO + 10) return code - ZERO;
  const letter = code | 0x20;
  return letter >= LOWER_A && letter < LOWER_A + 6 ? letter - LOWER_A + 10 : -1;
}

function fromGroups(groups: readonly number[]): IpWords {
  const word = (index: number) => groups[index]! * 0x10000 + groups[index + 1]!;
  const mapped = word(0) === 0 && word(2) === 0 && word(4) === 0xffff;
  return mapped ? { family: 4, words: [word(6), 0, 0, 0] } : { family: 6, words: [word(0), word(2), word(4), word(6)] };
}

/** Start and length of the longest run of zero groups; the first one wins among equals (RFC 5952 §4.2.3). */
function longestZeroRun(groups: readonly number[]): [start: number, length: number] {
  let best: [number, number] = [0, 0];
  let start = 0;
  for (let at = 0; at <= groups.length; at++) {
    if (groups[at] === 0) continue;
    if (at - start > best[1]) best = [start, at - start];
    start = at + 1;
  }
  return best;
}
