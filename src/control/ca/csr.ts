import { createPublicKey, type KeyObject, verify } from 'node:crypto';
import { CulvertError } from '../../errors.ts';
import * as der from '../../identity/der.ts';
import { extensionValue, GENERAL_NAME, OID } from '../../identity/signing.ts';

/** A request for a certificate (PKCS#10, RFC 2986), once the key in it has proven that it signed it. */
export interface SigningRequest {
  /** SubjectPublicKeyInfo as OpenSSL writes it. */
  readonly publicKey: Buffer;
  readonly hasCommonName: boolean;
  /** The alternative names that are asked for: URIs as they are, others with their kind in front. */
  readonly names: readonly string[];
}

/**
 * Reads a request. Weak keys, which the incumbent certifies, are refused: RSA below 2048 bits or with a small exponent, and
 * curves other than P-256 and P-384; so are signatures with SHA-1.
 * @throws CulvertError CSR_INVALID or CSR_KEY_WEAK; nothing of the request is in the message
 */
export function readSigningRequest(pem: string): SigningRequest {
  const bytes = decode(pem);
  try {
    return read(bytes);
  } catch (cause) {
    throw cause instanceof CulvertError ? cause : invalid('it is not encoded as DER', cause);
  }
}

/** RSA of 8192 bits takes 3 KiB with its signature; names take the rest. */
const MAX_PEM_LENGTH = 16 * 1024;
const PEM =
  /^\s*-----BEGIN (NEW )?CERTIFICATE REQUEST-----([A-Za-z0-9+/=\s]+)-----END (NEW )?CERTIFICATE REQUEST-----\s*$/;

function decode(pem: string): Buffer {
  if (pem.length > MAX_PEM_LENGTH) throw invalid(`it is longer than ${MAX_PEM_LENGTH} characters`);
  const base64 = PEM.exec(pem)?.[2];
  if (base64 === undefined) throw invalid('it is not one PEM block of a CERTIFICATE REQUEST');
  return Buffer.from(base64, 'base64');
}

function read(bytes: Buffer): SigningRequest {
  const [request, ...trailing] = der.elements(bytes);
  const parts = request?.tag === der.TAG.sequence ? der.elements(request.content) : [];
  const [info, algorithm, signature] = parts;
  if (parts.length !== 3 || trailing.length > 0 || info?.tag !== der.TAG.sequence) {
    throw invalid('it has not the form of PKCS#10');
  }
  if (algorithm?.tag !== der.TAG.sequence || signature?.tag !== der.TAG.bitString) {
    throw invalid('it has not the form of PKCS#10');
  }
  const [version, subject, keyInfo, attributes] = der.elements(info.content);
  if (version?.tag !== der.TAG.integer || subject?.tag !== der.TAG.sequence || keyInfo?.tag !== der.TAG.sequence) {
    throw invalid('it has not the form of PKCS#10');
  }
  const key = readKey(keyInfo.whole);
  const [oid] = der.elements(algorithm.content);
  const scheme = SIGNATURES.find((it) => oid?.whole.equals(it.oid));
  if (scheme === undefined || scheme.keyType !== key.asymmetricKeyType) {
    throw invalid('its signature is of a kind that is not accepted: ECDSA or RSA (PKCS#1) with SHA-256, 384 or 512');
  }
  // The first octet of a BIT STRING counts the unused bits at its end.
  const octets = signature.content[0] === 0 ? signature.content.subarray(1) : null;
  if (octets === null || !verify(scheme.hash, info.whole, key, octets)) {
    throw invalid('its signature is not by the key in it');
  }
  return {
    publicKey: keyInfo.whole,
    hasCommonName: attributeNames(subject).some((name) => name.equals(COMMON_NAME)),
    names: attributes === undefined ? [] : requestedNames(attributes),
  };
}

const SIGNATURES = [
  { oid: der.oid('1.2.840.10045.4.3.2'), keyType: 'ec', hash: 'sha256' },
  { oid: der.oid('1.2.840.10045.4.3.3'), keyType: 'ec', hash: 'sha384' },
  { oid: der.oid('1.2.840.10045.4.3.4'), keyType: 'ec', hash: 'sha512' },
  { oid: der.oid('1.2.840.113549.1.1.11'), keyType: 'rsa', hash: 'sha256' },
  { oid: der.oid('1.2.840.113549.1.1.12'), keyType: 'rsa', hash: 'sha384' },
  { oid: der.oid('1.2.840.113549.1.1.13'), keyType: 'rsa', hash: 'sha512' },
] as const;

const MIN_RSA_BITS = 2048;
/** Larger ones cost more to verify than anybody gains. */
const MAX_RSA_BITS = 8192;
const MIN_RSA_EXPONENT = 65_537n;
const MAX_RSA_EXPONENT = 2n ** 32n;
/** Length of a key whose point is uncompressed: other forms are not read everywhere. */
const EC_KEY_LENGTHS: Readonly<Record<string, number>> = { prime256v1: 91, secp384r1: 120 };

function readKey(spki: Buffer): KeyObject {
  let key: KeyObject;
  try {
    key = createPublicKey({ key: spki, format: 'der', type: 'spki' });
  } catch (cause) {
    throw invalid('its key cannot be read', cause);
  }
  const { modulusLength = 0, publicExponent = 0n, namedCurve = '' } = key.asymmetricKeyDetails ?? {};
  switch (key.asymmetricKeyType) {
    case 'rsa':
      if (modulusLength < MIN_RSA_BITS) throw weak(`is an RSA key of fewer than ${MIN_RSA_BITS} bits`);
      if (modulusLength > MAX_RSA_BITS) throw weak(`is an RSA key of more than ${MAX_RSA_BITS} bits`);
      if (publicExponent < MIN_RSA_EXPONENT || publicExponent > MAX_RSA_EXPONENT) {
        throw weak('is an RSA key with an exponent out of bounds');
      }
      break;
    case 'ec':
      if (!Object.hasOwn(EC_KEY_LENGTHS, namedCurve)) throw weak('is on a curve other than P-256 and P-384');
      if (spki.length !== EC_KEY_LENGTHS[namedCurve]) throw invalid('its key is not in the uncompressed form');
      break;
    default:
      throw weak('is neither RSA nor on P-256 or P-384');
  }
  // What goes into the certificate is what was judged, however it was written.
  if (!key.export({ format: 'der', type: 'spki' }).equals(spki)) throw invalid('its key is not encoded as DER');
  return key;
}

const COMMON_NAME = der.oid(OID.commonName);

/** The types of the attributes of a Name. */
function attributeNames(name: der.Element): Buffer[] {
  return der
    .elements(name.content)
    .flatMap((set) => der.elements(set.content))
    .flatMap((attribute) => der.elements(attribute.content).slice(0, 1))
    .map(({ whole }) => whole);
}

const EXTENSION_REQUEST = der.oid(OID.extensionRequest);

function requestedNames(attributes: der.Element): string[] {
  return der.elements(attributes.content).flatMap((attribute) => {
    const [oid, values] = der.elements(attribute.content);
    if (oid === undefined || values === undefined || !oid.whole.equals(EXTENSION_REQUEST)) return [];
    return der.elements(values.content).flatMap((extensions) => {
      const names = extensionValue(der.elements(extensions.content), OID.subjectAltName);
      return names === null ? [] : der.elements(names.content).map(nameText);
    });
  });
}

function nameText({ tag, content }: der.Element): string {
  const kind = tag & 0x1f;
  return kind === GENERAL_NAME.uri ? content.toString('latin1') : `${kind}:${content.toString('latin1')}`;
}

function invalid(what: string, cause?: unknown): CulvertError<'CSR_INVALID'> {
  return new CulvertError('CSR_INVALID', `the certificate request cannot be used: ${what}`, { cause });
}

function weak(what: string): CulvertError<'CSR_KEY_WEAK'> {
  return new CulvertError(
    'CSR_KEY_WEAK',
    `the key of the certificate request ${what}; accepted are RSA from ${MIN_RSA_BITS} bits on, P-256 and P-384`,
  );
}
