import { type KeyObject, randomBytes, type SignKeyObjectInput, sign } from 'node:crypto';
import { promisify } from 'node:util';
import { CulvertError } from '../errors.ts';
import { type IpWords, parseIp } from '../netns/address.ts';
import * as der from './der.ts';

/**
 * Writes and signs the kinds of X.509 certificates that culvert issues (RFC 5280), and requests for one. Written out here because the
 * general library keeps 25 MB resident; this keeps less than 1, and takes 0.6 ms for a key and its certificate instead
 * of 1.8.
 */

/** Who signs: its key and, taken from its certificate byte for byte, its name and key identifier. */
export interface Issuer {
  readonly key: KeyObject;
  /** DER of the Name. */
  readonly name: Buffer;
  /** Content of the subject key identifier; null when the certificate has none. */
  readonly keyIdentifier: Buffer | null;
}

export interface Validity {
  /** ms since 1970; written in whole seconds. */
  readonly notBefore: number;
  readonly notAfter: number;
}

/**
 * A workload certificate: empty subject, the SPIFFE id as critical URI name, for TLS servers and clients.
 * @param publicKey SubjectPublicKeyInfo
 */
export function signWorkloadCertificate(
  issuer: Issuer,
  identity: string,
  publicKey: Buffer,
  validity: Validity,
): Promise<Buffer> {
  return signLeafCertificate(
    issuer,
    { names: [identity], commonName: null, keyEncipherment: false },
    publicKey,
    validity,
  );
}

/** What differs between the certificates of leaves. */
export interface LeafProfile {
  /** Each an identity `spiffe://…`, an IP address, or else a DNS name, as its text says. */
  readonly names: readonly string[];
  /** Null for an empty subject. */
  readonly commonName: string | null;
  /** Whether the key may encrypt other keys, which RSA did before TLS 1.3. */
  readonly keyEncipherment: boolean;
}

/** A certificate for TLS servers and clients. @param publicKey SubjectPublicKeyInfo */
export function signLeafCertificate(
  issuer: Issuer,
  { names, commonName, keyEncipherment }: LeafProfile,
  publicKey: Buffer,
  validity: Validity,
): Promise<Buffer> {
  const subject = commonName === null ? der.sequence() : nameOf(OID.commonName, commonName);
  const usages = [KEY_USAGE.digitalSignature, ...(keyEncipherment ? [KEY_USAGE.keyEncipherment] : [])];
  return signCertificate(issuer, subject, publicKey, validity, [
    extension(OID.keyUsage, 'critical', der.namedBits(...usages)),
    extension(OID.extendedKeyUsage, 'optional', der.sequence(der.oid(OID.serverAuth), der.oid(OID.clientAuth))),
    extension(OID.basicConstraints, 'critical', der.sequence()),
    ...authorityKeyIdentifier(issuer),
    alternativeNames(names),
  ]);
}

/**
 * A PKCS#10 request (RFC 2986): empty subject, the SPIFFE id as critical URI name and nothing else (§8.2).
 * @param publicKey SubjectPublicKeyInfo of `key`, which is of a kind that `signatureOf` knows
 */
export async function signCertificateRequest(key: KeyObject, identity: string, publicKey: Buffer): Promise<Buffer> {
  const signature = signatureOf(key)!;
  const requestedExtensions = der.sequence(
    der.oid(OID.extensionRequest),
    der.element(der.TAG.set, der.sequence(alternativeNames([identity]))),
  );
  const info = der.sequence(
    der.unsignedInteger(Buffer.of(0)),
    der.sequence(),
    publicKey,
    der.explicit(0, requestedExtensions),
  );
  return der.sequence(info, signature.algorithm, der.bitString(await signAsync(signature.hash, info, key)));
}

/** A self-signed CA certificate for the issuer's own key. @param publicKey SubjectPublicKeyInfo */
export function signRootCertificate(
  issuer: Issuer & { readonly keyIdentifier: Buffer },
  publicKey: Buffer,
  validity: Validity,
): Promise<Buffer> {
  return signCertificate(issuer, issuer.name, publicKey, validity, [
    extension(OID.keyUsage, 'critical', der.namedBits(KEY_USAGE.keyCertSign, KEY_USAGE.cRLSign)),
    extension(OID.basicConstraints, 'critical', der.sequence(der.TRUE)),
    extension(OID.subjectKeyIdentifier, 'optional', der.element(der.TAG.octetString, issuer.keyIdentifier)),
  ]);
}

/** A Name of one organisation. */
export function organizationName(organization: string): Buffer {
  return nameOf(OID.organization, organization);
}

function nameOf(attribute: string, text: string): Buffer {
  const value = der.element(der.TAG.utf8String, Buffer.from(text));
  return der.sequence(der.element(der.TAG.set, der.sequence(der.oid(attribute), value)));
}

/** What a CA's certificate says that signing needs and `X509Certificate` does not tell. */
export interface CaDetails {
  readonly subject: Buffer;
  readonly keyIdentifier: Buffer | null;
  /** False only when the certificate has a key usage that does not include signing certificates. */
  readonly maySign: boolean;
}

/** @param raw DER of a certificate that OpenSSL has parsed */
export function readCaDetails(raw: Buffer): CaDetails {
  const tbs = der.elements(der.elements(der.elements(raw)[0]!.content)[0]!.content);
  // [0] version, serial, signature, issuer, validity, subject, key, …, [3] extensions. A CA is always version 3.
  const subject = tbs[5]!.whole;
  const list = tbs.find(({ tag }) => tag === 0xa3);
  const extensions = list === undefined ? [] : der.elements(der.elements(list.content)[0]!.content);
  const keyUsage = extensionValue(extensions, OID.keyUsage);
  return {
    subject,
    keyIdentifier: extensionValue(extensions, OID.subjectKeyIdentifier)?.content ?? null,
    maySign: keyUsage === null || ((keyUsage.content[1] ?? 0) & (0x80 >> KEY_USAGE.keyCertSign)) !== 0,
  };
}

/** What an extension holds; null when it is not there. @param extensions each a SEQUENCE (RFC 5280 §4.1) */
export function extensionValue(extensions: readonly der.Element[], dotted: string): der.Element | null {
  const id = der.oid(dotted);
  const parts = extensions.map(({ content }) => der.elements(content)).find(([first]) => first?.whole.equals(id));
  return parts === undefined ? null : (der.elements(parts.at(-1)!.content)[0] ?? null);
}

/** The hash that goes with a CA's key, or null for a kind of key that is not supported. */
export function signatureOf(key: KeyObject): { hash: 'sha256' | 'sha384'; algorithm: Buffer } | null {
  if (key.asymmetricKeyType === 'rsa') {
    // sha256WithRSAEncryption; its parameters are an explicit NULL (RFC 4055 §5).
    return { hash: 'sha256', algorithm: der.sequence(der.oid('1.2.840.113549.1.1.11'), Buffer.of(5, 0)) };
  }
  if (key.asymmetricKeyType !== 'ec') return null;
  switch (key.asymmetricKeyDetails?.namedCurve) {
    case 'prime256v1':
      return { hash: 'sha256', algorithm: der.sequence(der.oid('1.2.840.10045.4.3.2')) };
    case 'secp384r1':
      return { hash: 'sha384', algorithm: der.sequence(der.oid('1.2.840.10045.4.3.3')) };
    default:
      return null;
  }
}

// RFC 5280 §4.2.1.3.
const KEY_USAGE = { digitalSignature: 0, keyEncipherment: 2, keyCertSign: 5, cRLSign: 6 } as const;

/** Of what certificates and requests are made of (RFC 5280 §4.2, RFC 2985 §5.4.2). */
export const OID = {
  commonName: '2.5.4.3',
  organization: '2.5.4.10',
  subjectKeyIdentifier: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  authorityKeyIdentifier: '2.5.29.35',
  extendedKeyUsage: '2.5.29.37',
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
  extensionRequest: '1.2.840.113549.1.9.14',
} as const;

const signAsync = promisify<string, Buffer, KeyObject | SignKeyObjectInput, Buffer>(sign);

async function signCertificate(
  issuer: Issuer,
  subject: Buffer,
  publicKey: Buffer,
  validity: Validity,
  extensions: readonly Buffer[],
): Promise<Buffer> {
  const signature = signatureOf(issuer.key);
  if (signature === null) throw new CulvertError('CA_INVALID', 'the CA has a kind of key that is not supported');
  const tbs = der.sequence(
    der.explicit(0, der.unsignedInteger(Buffer.of(2))),
    der.unsignedInteger(serialNumber()),
    signature.algorithm,
    issuer.name,
    der.sequence(der.time(validity.notBefore), der.time(validity.notAfter)),
    subject,
    publicKey,
    der.explicit(3, der.sequence(...extensions)),
  );
  return der.sequence(tbs, signature.algorithm, der.bitString(await signAsync(signature.hash, tbs, issuer.key)));
}

/** 127 random bits: positive without a further octet, and never 0 in practice (RFC 5280 §4.1.2.2). */
function serialNumber(): Buffer {
  const bytes = randomBytes(16);
  bytes[0]! &= 0x7f;
  return bytes;
}

function extension(dotted: string, weight: 'critical' | 'optional', value: Buffer): Buffer {
  const octets = der.element(der.TAG.octetString, value);
  return weight === 'critical'
    ? der.sequence(der.oid(dotted), der.TRUE, octets)
    : der.sequence(der.oid(dotted), octets);
}

/** Critical because the subject is empty (RFC 5280 §4.2.1.6). */
function alternativeNames(names: readonly string[]): Buffer {
  return extension(OID.subjectAltName, 'critical', der.sequence(...names.map(generalName)));
}

/** The tags of a GeneralName (RFC 5280 §4.2.1.6). */
export const GENERAL_NAME = { dns: 2, uri: 6, ip: 7 } as const;

function generalName(text: string): Buffer {
  if (text.startsWith('spiffe://')) return der.implicit(GENERAL_NAME.uri, Buffer.from(text, 'ascii'));
  const ip = parseIp(text);
  return ip === null
    ? der.implicit(GENERAL_NAME.dns, Buffer.from(text, 'ascii'))
    : der.implicit(GENERAL_NAME.ip, ipBytes(ip));
}

function ipBytes({ family, words }: IpWords): Buffer {
  const bytes = Buffer.alloc(16);
  for (const [at, word] of words.entries()) bytes.writeUInt32BE(word >>> 0, at * 4);
  return family === 4 ? bytes.subarray(0, 4) : bytes;
}

function authorityKeyIdentifier(issuer: Issuer): Buffer[] {
  if (issuer.keyIdentifier === null) return [];
  return [extension(OID.authorityKeyIdentifier, 'optional', der.sequence(der.implicit(0, issuer.keyIdentifier)))];
}
