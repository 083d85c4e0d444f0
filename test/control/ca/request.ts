/** Requests to a CA as clients make them: keys and PKCS#10 by the stock openssl, messages by protobufjs from the schema. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import protobuf from 'protobufjs';
import { openssl } from '../../identity/openssl.ts';

const schema = protobuf.parse(`
  syntax = "proto3";
  package istio.v1.auth;
  import "google/protobuf/struct.proto";
  message IstioCertificateRequest { string csr = 1; int64 validity_duration = 3; google.protobuf.Struct metadata = 4; }
`).root;
schema.addJSON(protobuf.common.get('google/protobuf/struct.proto')!.nested!);
const Request = schema.lookupType('istio.v1.auth.IstioCertificateRequest');

export interface RequestFields {
  readonly csr: string;
  readonly validitySeconds: number;
  /** `fields` of the Struct. */
  readonly metadata: Readonly<Record<string, object>>;
}

export function encodeRequest({ csr = '', validitySeconds = 0, metadata }: Partial<RequestFields>): Buffer {
  const message = { csr, validityDuration: validitySeconds, ...(metadata && { metadata: { fields: metadata } }) };
  return Buffer.from(Request.encode(Request.fromObject(message)).finish());
}

/** The metadata by which an agent asks for somebody else. */
export function impersonating(identity: string): Pick<RequestFields, 'metadata'> {
  return { metadata: { ImpersonatedIdentity: { stringValue: identity } } };
}

/** Arguments of `openssl genpkey` by the kind of key. */
export const KEYS = {
  'P-256': ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256'],
  'P-384': ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-384'],
  'P-521': ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-521'],
  secp256k1: ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:secp256k1'],
  'RSA 2048': ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048'],
  'RSA 1024': ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:1024'],
  'RSA with exponent 3': ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048', '-pkeyopt', 'rsa_keygen_pubexp:3'],
  'RSA-PSS': ['-algorithm', 'RSA-PSS', '-pkeyopt', 'rsa_keygen_bits:2048'],
  Ed25519: ['-algorithm', 'ED25519'],
} as const;

/** A request as PEM, and its key beside it in `key.pem`. */
export function makeCsr(
  folder: string,
  options: {
    readonly key?: keyof typeof KEYS;
    readonly names?: string;
    readonly subject?: string;
    readonly digest?: string;
    readonly arguments?: readonly string[];
  } = {},
): string {
  const { key = 'P-256', names, subject = '/', digest = 'sha256' } = options;
  openssl(folder, 'genpkey', ...KEYS[key], '-out', 'key.pem');
  writeFileSync(join(folder, 'req.cnf'), '[req]\ndistinguished_name=dn\n[dn]\n');
  const extension = names === undefined ? [] : ['-addext', `subjectAltName=${names}`];
  openssl(
    ...([folder, 'req', '-new', '-config', 'req.cnf', '-key', 'key.pem', '-subj', subject, `-${digest}`] as const),
    ...[...extension, ...(options.arguments ?? []), '-out', 'request.csr'],
  );
  return readFileSync(join(folder, 'request.csr'), 'utf8');
}
