import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { createCertificateAuthority } from '../../../src/control/ca/certificate-authority.ts';
import { openPluggedCa } from '../../../src/control/ca/plugged-ca.ts';
import { keepServingCertificate } from '../../../src/control/ca/serving-certificate.ts';
import { createLogger } from '../../../src/log/logger.ts';
import { eventually } from '../../cni/support/eventually.ts';
import { scratchFolder } from '../../identity/scratch.ts';

test('a serving certificate that is not taken is named in the log, and another one is made', async (t) => {
  const lines: string[] = [];
  const log = createLogger({ format: 'plain', level: 'debug', write: (line) => void lines.push(line) });
  const create = { trustDomain: 'cluster.local', lifeMs: 86_400_000 };
  const ca = createCertificateAuthority(await openPluggedCa({ dir: join(scratchFolder(t), 'ca'), create, log }));
  t.after(() => ca.close());
  const offered: string[] = [];
  const kept = keepServingCertificate({ ca, names: ['x.svc'], log }, async ({ chainPem }) => {
    offered.push(chainPem);
    if (offered.length === 1) throw new Error('too small a key');
  });
  t.after(() => kept.close());
  const says = (text: string) => lines.filter((line) => line.includes(text)).length;
  await eventually('a second one is taken', () => says('has a new serving certificate') === 1);
  assert.equal(offered.length, 2);
  assert.notEqual(offered[0], offered[1]);
  assert.equal(says('too small a key'), 1);
});

test('a serving certificate that was made before the clock was set back is replaced', async (t) => {
  const log = createLogger({ format: 'plain', level: 'debug', write() {} });
  const create = { trustDomain: 'cluster.local', lifeMs: 86_400_000 };
  const ca = createCertificateAuthority(await openPluggedCa({ dir: join(scratchFolder(t), 'ca'), create, log }));
  t.after(() => ca.close());
  let setBy = 0;
  let taken = 0;
  const now = () => Date.now() + setBy;
  const kept = keepServingCertificate({ ca, names: ['x.svc'], log, now, checkMs: 10 }, async () => void taken++);
  t.after(() => kept.close());
  await eventually('the first one is taken', () => taken === 1);
  setBy = -3_600_000;
  await eventually('another one is taken', () => taken === 2);
});
