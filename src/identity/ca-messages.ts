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

const VARINT = 0;
const BYTES = 2;

function tag(field: number, wireType: number): number {
  return (field << 3) | wireType;
}
