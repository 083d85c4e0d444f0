import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { runChecked } from '../../src/netns/run.ts';

/** Files of one side: P-256 key, certificate with the SPIFFE identity, and the root that both sides trust. */
export interface Side {
  readonly identity: string;
  readonly key: string;
  readonly chain: string;
  readonly roots: string;
  /** Key and chain in one file, as haproxy wants it. */
  readonly bundle: string;
}

/** Two identities of one certificate authority, made by openssl in `folder`. */
export async function makeCertificates(folder: string): Promise<{ near: Side; far: Side }> {
  const roots = join(folder, 'root.pem');
  const rootKey = join(folder, 'root.key');
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  await openssl([
    'req',
    '-x509',
    ...newKey,
    '-keyout',
    rootKey,
    '-out',
    roots,
    '-days',
    '2',
    '-subj',
    '/O=cluster.local',
  ]);
  const sign = async (name: string): Promise<Side> => {
    const identity = `spiffe://cluster.local/ns/bench/sa/${name}`;
    const file = (extension: string) => join(folder, `${name}.${extension}`);
    const extensions = file('ext');
    writeFileSync(
      extensions,
      `subjectAltName=critical,URI:${identity}\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n`,
    );
    await openssl(['req', ...newKey, '-keyout', file('key'), '-out', file('csr'), '-subj', '/']);
    await openssl([
      ...['x509', '-req', '-in', file('csr'), '-CA', roots, '-CAkey', rootKey, '-CAcreateserial'],
      ...['-out', file('pem'), '-days', '1', '-extfile', extensions],
    ]);
    const bundle = file('bundle.pem');
    writeFileSync(bundle, readFileSync(file('pem'), 'utf8') + readFileSync(file('key'), 'utf8'));
    return { identity, key: file('key'), chain: file('pem'), roots, bundle };
  };
  return { near: await sign('near'), far: await sign('far') };
}

function openssl(args: string[]): Promise<string> {
  return runChecked(['openssl', ...args]);
}
