/** A certificate authority for tests, which issues what a proper one would not. */
import { generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto';
import type { TlsMaterial } from '../../native/channel.ts';
import {
  bitString,
  element,
  explicit,
  implicit,
  namedBits,
  oid,
  sequence,
  TAG,
  TRUE,
  time,
  unsignedInteger,
} from '../../src/identity/der.ts';
import { certificateToPem } from '../../src/identity/pem.ts';

export const DEFAULT_GROUPS = '*X25519MLKEM768:*X25519:P-256:P-384';

const HOUR = 3_600_000;

const ECDSA_WITH_SHA256 = '1.2.840.10045.4.3.2';
const ORGANIZATION = '2.5.4.10';
const KEY_USAGE = '2.5.29.15';
const SUBJECT_ALT_NAME = '2.5.29.17';
const BASIC_CONSTRAINTS = '2.5.29.19';
const EXTENDED_KEY_USAGE = '2.5.29.37';
export const SERVER_AUTH = '1.3.6.1.5.5.7.3.1';
export const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2';

const DIGITAL_SIGNATURE = 0;
const KEY_CERT_SIGN = 5;

export interface Leaf {
  /** URI names, in order. */
  readonly uris?: readonly string[];
  readonly dnsNames?: readonly string[];
  /** Milliseconds from now. */
  readonly notBefore?: number;
  readonly notAfter?: number;
  readonly usages?: readonly string[];
  readonly key?: 'EC' | 'RSA';
}

/** With the key as other programs read it. */
export interface TestMaterial extends TlsMaterial {
  readonly keyPem: string;
}

export interface Authority {
  readonly rootPem: string;
  /** A certificate with its key, and the root as what they trust. */
  material(leaf: Leaf, changes?: Partial<TlsMaterial>): TestMaterial;
  /** An authority whose certificates come with an intermediate certificate. */
  intermediate(): Authority;
}

export function createAuthority(name = 'root'): Authority {
  return authority(name, null);
}

interface Signer {
  readonly name: Buffer;
  readonly key: KeyObject;
  readonly rootPem: string;
}

function authority(commonName: string, parent: Signer | null): Authority {
  const { publicKey, privateKey: key } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const name = sequence(
    element(TAG.set, sequence(oid(ORGANIZATION), element(TAG.utf8String, Buffer.from(commonName)))),
  );
  const own = certificate(parent ?? { name, key }, name, publicKey, -HOUR, 10 * HOUR, [
    extension(BASIC_CONSTRAINTS, sequence(TRUE)),
    extension(KEY_USAGE, namedBits(KEY_CERT_SIGN)),
  ]);
  const signer: Signer = { name, key, rootPem: parent?.rootPem ?? own };
  return {
    rootPem: signer.rootPem,
    intermediate: () => authority(`${commonName} intermediate`, signer),
    material({ uris = [], dnsNames = [], notBefore = -HOUR, notAfter = HOUR, usages, key = 'EC' }, changes = {}) {
      const keys =
        key === 'EC'
          ? generateKeyPairSync('ec', { namedCurve: 'P-256' })
          : generateKeyPairSync('rsa', { modulusLength: 2048 });
      const names = [
        ...uris.map((uri) => implicit(6, Buffer.from(uri, 'latin1'))),
        ...dnsNames.map((dns) => implicit(2, Buffer.from(dns))),
      ];
      const leaf = certificate(signer, sequence(), keys.publicKey, notBefore, notAfter, [
        extension(KEY_USAGE, namedBits(DIGITAL_SIGNATURE)),
        extension(EXTENDED_KEY_USAGE, sequence(...(usages ?? [SERVER_AUTH, CLIENT_AUTH]).map(oid))),
        ...(names.length > 0 ? [extension(SUBJECT_ALT_NAME, sequence(...names))] : []),
      ]);
      return {
        chainPem: leaf + (parent === null ? '' : own),
        key: keys.privateKey,
        keyPem: keys.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
        rootsPem: signer.rootPem,
        groups: DEFAULT_GROUPS,
        keyLogPath: '',
        tls12: false,
        ...changes,
      };
    },
  };
}

function certificate(
  issuer: { readonly name: Buffer; readonly key: KeyObject },
  subject: Buffer,
  publicKey: KeyObject,
  notBefore: number,
  notAfter: number,
  extensions: readonly Buffer[],
): string {
  const algorithm = sequence(oid(ECDSA_WITH_SHA256));
  const now = Date.now();
  const body = sequence(
    explicit(0, unsignedInteger(Buffer.of(2))),
    unsignedInteger(randomBytes(8)),
    algorithm,
    issuer.name,
    sequence(time(now + notBefore), time(now + notAfter)),
    subject,
    publicKey.export({ type: 'spki', format: 'der' }),
    explicit(3, sequence(...extensions)),
  );
  return certificateToPem(sequence(body, algorithm, bitString(sign('sha256', body, issuer.key))));
}

/** A critical extension. */
function extension(id: string, value: Buffer): Buffer {
  return sequence(oid(id), TRUE, element(TAG.octetString, value));
}
