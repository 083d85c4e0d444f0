import { execFileSync } from 'node:child_process';
import type { X509Certificate } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Runs the stock `openssl` in a folder and returns what it printed; throws with its errors when it fails. */
export function openssl(folder: string, ...args: string[]): string {
  return execFileSync('openssl', args, { cwd: folder, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

/** Kinds of CA keys and how openssl makes a file of each. */
export const keyKinds: Readonly<Record<string, (folder: string, file: string) => void>> = {
  'EC P-256 in PKCS#8': (folder, file) => {
    openssl(folder, 'genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', file);
  },
  'EC P-384 in PKCS#8': (folder, file) => {
    openssl(folder, 'genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-384', '-out', file);
  },
  'EC P-256 in SEC1 after its parameters': (folder, file) => {
    openssl(folder, 'ecparam', '-name', 'prime256v1', '-genkey', '-out', file);
  },
  'EC P-384 in SEC1': (folder, file) => {
    openssl(folder, 'ecparam', '-name', 'secp384r1', '-genkey', '-noout', '-out', file);
  },
  'RSA 2048 in PKCS#8': (folder, file) => {
    openssl(folder, 'genpkey', '-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048', '-out', file);
  },
  'RSA 2048 in PKCS#1': (folder, file) => {
    openssl(folder, 'genrsa', '-traditional', '-out', file, '2048');
  },
};

export interface CaRequest {
  /** Makes the key file. */
  readonly key?: (folder: string, file: string) => void;
  /** `x509v3` extensions, one per line. */
  readonly extensions?: string;
  readonly subject?: string;
  /** As `openssl x509 -not_before/-not_after` take them; ten years from now by default. */
  readonly days?: number;
}

const CA_EXTENSIONS = 'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\n';

/** Writes `<name>.key` and a self-signed `<name>.crt`. */
export function makeRoot(folder: string, name: string, request: CaRequest = {}): void {
  prepare(folder, name, request);
  openssl(folder, ...signArguments(name, request), '-signkey', `${name}.key`);
}

/** Writes `<name>.key` and `<name>.crt`, signed by `<by>`. */
export function makeIntermediate(folder: string, name: string, by: string, request: CaRequest = {}): void {
  prepare(folder, name, request);
  openssl(folder, ...signArguments(name, request), '-CA', `${by}.crt`, '-CAkey', `${by}.key`, '-CAcreateserial');
}

/** A list of what an issuer has revoked, PEM. Certificate and key are file names. */
export function makeRevocationList(
  folder: string,
  issuer: { readonly cert: string; readonly key: string },
  revoked: readonly X509Certificate[],
): string {
  const entries = revoked.map(
    ({ serialNumber }) => `R\t490101000000Z\t260101000000Z\t${serialNumber}\tunknown\t/CN=x\n`,
  );
  writeFileSync(join(folder, 'index.txt'), entries.join(''));
  writeFileSync(
    join(folder, 'crl.cnf'),
    `[ca]\ndefault_ca=x\n[x]\ndatabase=index.txt\ncertificate=${issuer.cert}\nprivate_key=${issuer.key}\ndefault_md=sha256\n`,
  );
  openssl(folder, 'ca', '-gencrl', '-config', 'crl.cnf', '-crldays', '30', '-out', 'list.pem');
  return readFileSync(join(folder, 'list.pem'), 'utf8');
}

function prepare(folder: string, name: string, request: CaRequest): void {
  (request.key ?? keyKinds['EC P-256 in PKCS#8']!)(folder, `${name}.key`);
  writeFileSync(join(folder, `${name}.ext`), request.extensions ?? CA_EXTENSIONS);
  const subject = request.subject ?? `/O=test/CN=${name}`;
  openssl(folder, 'req', '-new', '-key', `${name}.key`, '-subj', subject, '-out', `${name}.csr`);
}

function signArguments(name: string, { days = 3650 }: CaRequest): string[] {
  return [
    'x509',
    '-req',
    '-in',
    `${name}.csr`,
    '-days',
    String(days),
    '-extfile',
    `${name}.ext`,
    '-out',
    `${name}.crt`,
  ];
}
