import protobuf from 'protobufjs/minimal.js';

/** The two messages of istio.v1.auth.IstioCertificateService (§8.3). */

export interface CertificateRequest {
  /** PKCS#10, PEM. */
  readonly csr: string;
  /** Asked for, in whole seconds. */
  readonly validitySeconds: number;
  /** The workload that this agent asks for in its own name. */
  readonly impersonatedIdentity: string;
}

/** A request as a CA receives it. */
export interface ReceivedCertificateRequest {
  readonly csr: string;
  /** Exact up to 2^53. */
  readonly validitySeconds: number;
  /** Null when it is asked for in the caller's own name. */
  readonly impersonatedIdentity: string | null;
}

export function encodeCertificateRequest({ csr, validitySeconds, impersonatedIdentity }: CertificateRequest): Buffer {
  const { Writer } = protobuf;
  // google.protobuf.Struct: a map of Values, of which the string is field 3.
  const value = Writer.create().uint32(tag(3, BYTES)).string(impersonatedIdentity).finish();
  const entry = Writer.create()
    .uint32(tag(1, BYTES))
    .string('ImpersonatedIdentity')
    .uint32(tag(2, BYTES))
    .bytes(value)
    .finish();
  const metadata = Writer.create().uint32(tag(1, BYTES)).bytes(entry).finish();
  const writer = Writer.create().uint32(tag(1, BYTES)).string(csr);
  writer.uint32(tag(3, VARINT)).int64(validitySeconds);
  return Buffer.from(writer.uint32(tag(4, BYTES)).bytes(metadata).finish());
}

/**
 * `cert_chain` of the response: leaf, intermediates, roots, each PEM.
 * @throws Error when it is not such a message
 */
export function decodeCertificateResponse(message: Uint8Array): string[] {
  const reader = protobuf.Reader.create(message);
  const chain: string[] = [];
  while (reader.pos < reader.len) {
    const key = reader.uint32();
    if (key === tag(1, BYTES)) chain.push(reader.string());
    else reader.skipType(key & 7);
  }
  return chain;
}

/** @throws Error when it is not such a message, or names an identity by something other than text */
export function decodeCertificateRequest(message: Uint8Array): ReceivedCertificateRequest {
  const reader = protobuf.Reader.create(message);
  let csr = '';
  let validitySeconds = 0;
  let impersonatedIdentity: string | null = null;
  while (reader.pos < reader.len) {
    const key = reader.uint32();
    if (key === tag(1, BYTES)) csr = reader.string();
    else if (key === tag(3, VARINT)) validitySeconds = Number(reader.int64().toString());
    else if (key === tag(4, BYTES)) impersonatedIdentity = impersonatedIn(reader.bytes()) ?? impersonatedIdentity;
    else reader.skipType(key & 7);
  }
  return { csr, validitySeconds, impersonatedIdentity };
}

/** The text of `ImpersonatedIdentity` in a Struct; null when it is not there. Of entries with that key the last counts. */
function impersonatedIn(struct: Uint8Array): string | null {
  const reader = protobuf.Reader.create(struct);
  let found: string | null = null;
  while (reader.pos < reader.len) {
    const key = reader.uint32();
    if (key !== tag(1, BYTES)) {
      reader.skipType(key & 7);
      continue;
    }
    const [name, value] = entryOf(reader.bytes());
    if (name !== 'ImpersonatedIdentity') continue;
    if (value === null) throw new Error('ImpersonatedIdentity is not text');
    found = value;
  }
  return found;
}

/** An entry of the map in a Struct; the value is null when it is not text. */
function entryOf(bytes: Uint8Array): [name: string, value: string | null] {
  const reader = protobuf.Reader.create(bytes);
  let name = '';
  let value: string | null = null;
  while (reader.pos < reader.len) {
    const key = reader.uint32();
    if (key === tag(1, BYTES)) name = reader.string();
    else if (key === tag(2, BYTES)) value = textOf(reader.bytes());
    else reader.skipType(key & 7);
  }
  return [name, value];
}

/** The text of a Value, whose kinds exclude each other: the last counts. */
function textOf(value: Uint8Array): string | null {
  const reader = protobuf.Reader.create(value);
  let text: string | null = null;
  while (reader.pos < reader.len) {
    const key = reader.uint32();
    if (key === tag(3, BYTES)) text = reader.string();
    else {
      text = null;
      reader.skipType(key & 7);
    }
  }
  return text;
}

/** @param chain leaf, intermediates, and last the roots in one text; each PEM */
export function encodeCertificateResponse(chain: readonly string[]): Buffer {
  const writer = protobuf.Writer.create();
  for (const pem of chain) writer.uint32(tag(1, BYTES)).string(pem);
  return Buffer.from(writer.finish());
}

const VARINT = 0;
const BYTES = 2;

function tag(field: number, wireType: number): number {
  return (field << 3) | wireType;
}
