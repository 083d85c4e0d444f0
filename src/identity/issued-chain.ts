import { X509Certificate } from 'node:crypto';
import { CulvertError, messageOf } from '../errors.ts';
import { pathToRoot } from './path-to-root.ts';
import { certificateToPem, splitCertificates } from './pem.ts';

/** What a CA has issued, once it is known to be what was asked for. */
export interface IssuedChain {
  /** The leaf and the intermediates above it. */
  readonly chainPem: string;
  readonly rootsPem: string;
  /** Of the leaf, ms since 1970. */
  readonly notBefore: number;
  readonly notAfter: number;
  /** Decimal. */
  readonly serial: string;
  /** Roots that cannot be read; they are left out. */
  readonly skippedRoots: number;
}

/**
 * Reads the answer of a CA (§8.3): leaf, intermediates, and last the roots, of which there may be several in one text.
 * Whatever peers would refuse is refused here, where it can still be said why. The time is not looked at.
 * @param publicKey SubjectPublicKeyInfo of the key that the certificate is for
 * @throws CulvertError CA_ANSWER_INVALID
 */
export function readIssuedChain(answer: readonly string[], identity: string, publicKey: Buffer): IssuedChain {
  const [first, ...rest] = answer;
  const rootsText = rest.pop();
  if (first === undefined) throw invalid(`chain returned from CA is empty for: ${identity}`);
  if (rootsText === undefined) throw invalid('invalid root certificate: no root certificate present');

  const leaf = readOne(first, 'the certificate');
  const intermediates = rest
    .flatMap(splitCertificates)
    .map((pem, index) => readOne(pem, `intermediate certificate ${index + 1}`));
  const rootBlocks = splitCertificates(rootsText);
  const roots = rootBlocks.flatMap((pem) => readIfPossible(pem));
  if (roots.length === 0) throw invalid('invalid root certificate: none of the roots can be read');

  const names = uriNames(leaf);
  if (names[0] !== identity) throw invalid(`did not find expected SAN: ${identity}, got (${names.join(', ')})`);
  if (!leaf.publicKey.export({ type: 'spki', format: 'der' }).equals(publicKey)) {
    throw invalid('the certificate is for another key than the one in the request');
  }
  if (pathToRoot(leaf, intermediates, roots) === null) {
    throw invalid(
      `the certificate, issued by ${oneLine(leaf.issuer)}, is not signed by any of the roots sent with it (${roots
        .map(({ subject }) => oneLine(subject))
        .join('; ')}), so no peer would accept it`,
    );
  }
  return {
    chainPem: [leaf, ...intermediates.filter((it) => !isAmong(it, roots))]
      .map(({ raw }) => certificateToPem(raw))
      .join(''),
    rootsPem: roots.map(({ raw }) => certificateToPem(raw)).join(''),
    notBefore: leaf.validFromDate.getTime(),
    notAfter: leaf.validToDate.getTime(),
    serial: BigInt(`0x${leaf.serialNumber}`).toString(),
    skippedRoots: rootBlocks.length - roots.length,
  };
}

function readOne(pem: string, what: string): X509Certificate {
  try {
    return new X509Certificate(pem);
  } catch (error) {
    throw invalid(`${what} cannot be read (${messageOf(error)})`, error);
  }
}

function readIfPossible(pem: string): X509Certificate[] {
  try {
    return [new X509Certificate(pem)];
  } catch {
    return [];
  }
}

/** Names with characters that Node would quote are none of a workload, and stay quoted here. */
function uriNames({ subjectAltName }: X509Certificate): string[] {
  const names = subjectAltName?.split(', ') ?? [];
  return names.filter((name) => name.startsWith('URI:')).map((name) => name.slice('URI:'.length));
}

function isAmong(certificate: X509Certificate, others: readonly X509Certificate[]): boolean {
  return others.some(({ raw }) => raw.equals(certificate.raw));
}

/** Node writes a name over several lines. */
function oneLine(name: string | undefined): string {
  return name === undefined || name === '' ? 'an empty name' : name.replaceAll('\n', ', ');
}

function invalid(what: string, cause?: unknown): CulvertError {
  return new CulvertError('CA_ANSWER_INVALID', `the answer of the CA cannot be used: ${what}`, { cause });
}
