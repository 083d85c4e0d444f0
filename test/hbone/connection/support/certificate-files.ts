import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { privateKeyPem } from '../../../../src/identity/workload-key.ts';
import { IDENTITY, type PlaneUnderTest } from '../../../worker/support/plane-under-test.ts';

export interface CertificateFiles {
  readonly key: string;
  readonly chain: string;
  readonly roots: string;
}

/** Key and certificates of the pod's own identity, as files that are gone after the test. */
export async function certificateFiles(t: TestContext, rig: PlaneUnderTest): Promise<CertificateFiles> {
  const folder = mkdtempSync(join(tmpdir(), 'culvert-interop-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const { privateKey, chainPem, rootsPem } = await rig.sign(IDENTITY);
  const files = { key: join(folder, 'key.pem'), chain: join(folder, 'chain.pem'), roots: join(folder, 'roots.pem') };
  writeFileSync(files.key, privateKeyPem(privateKey), { mode: 0o600 });
  writeFileSync(files.chain, chainPem);
  writeFileSync(files.roots, rootsPem);
  return files;
}
