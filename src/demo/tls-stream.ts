/** What a stream looks like to somebody who reads it on the wire. */
export type WireView =
  /** Nothing but TLS records, of which so many are encrypted. */
  | { readonly kind: 'tls'; readonly encryptedRecords: number }
  /** Something else from this byte on. */
  | { readonly kind: 'not-tls'; readonly at: number };

/** Follows the record headers of a stream from its first byte (RFC 8446 §5.1). Its last record may be incomplete. */
export function viewAsTls(bytes: Buffer): WireView {
  let encryptedRecords = 0;
  let at = 0;
  while (at + RECORD_HEADER <= bytes.length) {
    const type = bytes[at]!;
    const version = bytes.readUInt16BE(at + 1);
    const length = bytes.readUInt16BE(at + 3);
    // The version is frozen at TLS 1.2, and 1.0 in a first message; a stream begins with its handshake.
    const versionKnown = version === TLS_1_2 || (at === 0 && version === TLS_1_0);
    const typeKnown = at === 0 ? type === HANDSHAKE : type >= CHANGE_CIPHER_SPEC && type <= APPLICATION_DATA;
    if (!typeKnown || !versionKnown || length > MAX_RECORD) return { kind: 'not-tls', at };
    if (type === APPLICATION_DATA) encryptedRecords++;
    at += RECORD_HEADER + length;
  }
  return { kind: 'tls', encryptedRecords };
}

const RECORD_HEADER = 5;
const MAX_RECORD = 16384 + 256;
const CHANGE_CIPHER_SPEC = 20;
const HANDSHAKE = 22;
const APPLICATION_DATA = 23;
const TLS_1_0 = 0x0301;
const TLS_1_2 = 0x0303;
