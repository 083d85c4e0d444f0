import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { makeScratchCheckout, run } from './scratch-checkout.ts';

const notRoot = process.getuid?.() === 0 ? false : 'only root may install packages';

test('package lists are read when the first attempt fails', { skip: notRoot }, async (t) => {
  const checkout = makeScratchCheckout(t);
  const folder = join(checkout, 'fake');
  const calls = join(checkout, 'calls');
  mkdirSync(folder);
  writeFileSync(
    join(folder, 'apt-get'),
    `#!/bin/sh
echo "$DEBIAN_FRONTEND $*" >> ${calls}
[ "$1" = update ] && touch ${checkout}/lists
[ -e ${checkout}/lists ] || { echo 'E: Unable to locate package wrk'; exit 100; }
`,
  );
  chmodSync(join(folder, 'apt-get'), 0o755);
  const script = `
    import { installPackagesOf } from ${JSON.stringify(join(checkout, 'scripts/setup/packages.mjs'))};
    await installPackagesOf(['ip', 'nft']);`;
  const { CULVERT_NO_APT: _, ...env } = process.env;
  const outcome = await run(process.execPath, ['--input-type=module', '-e', script], {
    ...env,
    PATH: `${folder}:${process.env.PATH}`,
  });
  assert.equal(outcome.status, 0, outcome.stderr);
  const install = 'noninteractive install -y --no-install-recommends iproute2 nftables';
  assert.deepEqual(readFileSync(calls, 'utf8').trimEnd().split('\n'), [install, 'noninteractive update', install]);
});
