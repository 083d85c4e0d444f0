import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { CulvertError, messageOf } from '../errors.ts';
import { CA_FILE_NAMES, type CaFiles } from './ca-folder.ts';
import { pathToRoot } from './path-to-root.ts';
import { splitCertificates } from './pem.ts';
import { type CaDetails, type Issuer, readCaDetails, signatureOf, type Validity } from './signing.ts';

/** A CA that can sign: checked, and with everything that goes into each certificate. */
export interface CaMaterial {
  readonly issuer: Issuer;
  /** What peers need between a leaf and the root; empty when the root signs itself. */
  readonly intermediatesPem: string;
  readonly rootsPem: string;
  /** The one of the roots that the signing certificate leads to. */
  readonly anchor: X509Certificate;
  /** The time in which the signing certificate and all above it are valid, ms since 1970. */
  readonly validity: Validity;
}

/**
 * Checks the files of a CA as strictly as a verifying peer would, so that a mistake shows at start-up and not in handshakes.
 * Whether it is valid at this time is `checkValidity`'s matter.
 * @param where the folder, for errors
 * @throws CulvertError CA_INVALID naming the file
 */
export function readCaMaterial(files: CaFiles, where: string): CaMaterial {
  const invalid: Invalid = (file, what, cause) =>
    new CulvertError('CA_INVALID', `the CA in ${where} cannot be used: ${CA_FILE_NAMES[file]} ${what}`, { cause });
  const certificates = (file: 'cert' | 'chain' | 'roots'): X509Certificate[] => {
    const blocks = splitCertificates(files[file]);
    if (blocks.length === 0) throw invalid(file, 'has no PEM certificate');
    try {
      return blocks.map((block) => new X509Certificate(block));
    } catch (error) {
      throw invalid(file, `has a certificate that cannot be read (${messageOf(error)})`, error);
    }
  };

  const [signer] = certificates('cert') as [X509Certificate];
  const roots = certificates('roots');
  const chain = certificates('chain');
  const key = readKey(files.key, invalid);
  const details = detailsOf(signer, invalid);
  if (!details.maySign) throw invalid('cert', 'has a key usage without certificate signing (keyCertSign)');
  if (!signer.ca) throw invalid('cert', 'is not the certificate of a CA (CA:FALSE)');
  if (!signer.checkPrivateKey(key)) throw invalid('key', `does not belong to ${CA_FILE_NAMES.cert}`);

  const path = pathToRoot(signer, chain, roots);
  if (path === null) {
    throw invalid('cert', `is not signed by a root of ${CA_FILE_NAMES.roots}, nor through ${CA_FILE_NAMES.chain}`);
  }
  const isRoot = (certificate: X509Certificate) => roots.some(({ raw }) => raw.equals(certificate.raw));
  const intermediates = [signer, ...chain.filter(({ raw }) => !raw.equals(signer.raw))].filter(
    (certificate) => !isRoot(certificate) && !certificate.checkIssued(certificate),
  );
  checkAcceptable(intermediates.join(''), invalid);
  return {
    issuer: { key, name: details.subject, keyIdentifier: details.keyIdentifier },
    intermediatesPem: intermediates.map(String).join(''),
    rootsPem: roots.map(String).join(''),
    anchor: path.at(-1)!,
    validity: {
      notBefore: Math.max(...path.map(({ validFromDate }) => validFromDate.getTime())),
      notAfter: Math.min(...path.map(({ validToDate }) => validToDate.getTime())),
    },
  };
}

/** @throws CulvertError CA_EXPIRED or CA_NOT_YET_VALID, with both times, as either may be the wrong one */
export function checkValidity({ validity }: CaMaterial, now: number, where: string): void {
  const clock = `this node's clock says ${iso(now)}`;
  if (now >= validity.notAfter) {
    throw new CulvertError(
      'CA_EXPIRED',
      `the CA in ${where} expired on ${iso(validity.notAfter)}; ${clock}: renew it if that is right`,
    );
  }
  if (now < validity.notBefore) {
    throw new CulvertError(
      'CA_NOT_YET_VALID',
      `the CA in ${where} is not valid before ${iso(validity.notBefore)}; ${clock}`,
    );
  }
}

/** TLS refuses what OpenSSL's security level does not permit: short keys and weak digests above the leaf too. */
function checkAcceptable(intermediatesPem: string, invalid: Invalid): void {
  if (intermediatesPem === '') return;
  try {
    process.getBuiltinModule('node:tls').createSecureContext({ cert: intermediatesPem });
  } catch (error) {
    throw invalid('chain', `has a certificate that TLS does not accept (${messageOf(error)})`, error);
  }
}

type Invalid = (file: keyof CaFiles, what: string, cause?: unknown) => CulvertError;

function detailsOf(signer: X509Certificate, invalid: Invalid): CaDetails {
  try {
    return readCaDetails(signer.raw);
  } catch (error) {
    throw invalid('cert', 'is not encoded as DER', error);
  }
}

function readKey(pem: string | Buffer, invalid: Invalid): KeyObject {
  let key: KeyObject;
  try {
    key = createPrivateKey(pem);
  } catch (error) {
    if (pem.includes('ENCRYPTED')) throw invalid('key', 'is encrypted; it is needed without a passphrase', error);
    throw invalid('key', 'is not a private key in PEM (PKCS#8, SEC1 or PKCS#1)', error);
  }
  if (signatureOf(key) === null) {
    throw invalid(
      'key',
      `is a key of a kind that is not supported (${kindOf(key)}); needed is RSA, or EC on P-256 or P-384`,
    );
  }
  if (key.asymmetricKeyType === 'rsa' && (key.asymmetricKeyDetails?.modulusLength ?? 0) < MIN_RSA_BITS) {
    throw invalid('key', `is an RSA key of fewer than ${MIN_RSA_BITS} bits, which peers refuse`);
  }
  return key;
}

// OpenSSL's security level 2, the default, refuses shorter ones.
const MIN_RSA_BITS = 2048;

function kindOf(key: KeyObject): string {
  return [key.asymmetricKeyType, key.asymmetricKeyDetails?.namedCurve].filter(Boolean).join(' ');
}

function iso(ms: number): string {
  return new Date(ms).toISOString().replace('.000Z', 'Z');
}
