import assert from 'node:assert/strict';
import { appendFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { makeScratchCheckout, run } from './scratch-checkout.ts';

test('a compile error shows the compiler line and where the full output is', async (t) => {
  const checkout = makeScratchCheckout(t);
  appendFileSync(join(checkout, 'native/addon.cc'), 'int broken = "text";\n');
  const outcome = await run(process.execPath, [join(checkout, 'scripts/setup.mjs')]);
  assert.equal(outcome.status, 1);
  assert.match(outcome.stderr, /building the addon failed/);
  assert.match(outcome.stderr, /addon\.cc:\d+:\d+: error: invalid conversion/);
  assert.match(outcome.stderr, /remedy: .*addon-normal-build\.log/);
});

test('missing programs that may not be installed are named in one message, with their packages', async (t) => {
  const checkout = makeScratchCheckout(t);
  const script = `
    import { installPackagesOf } from ${JSON.stringify(join(checkout, 'scripts/setup/packages.mjs'))};
    import { orExplain } from ${JSON.stringify(join(checkout, 'scripts/setup.mjs'))};
    await orExplain(() => installPackagesOf(['ip', 'nft', 'wrk']));`;
  const outcome = await run(process.execPath, ['--input-type=module', '-e', script], {
    ...process.env,
    CULVERT_NO_APT: '1',
  });
  assert.equal(outcome.status, 1);
  assert.match(outcome.stderr, /missing: ip, nft, wrk \(Debian packages: iproute2 nftables wrk\)/);
  assert.match(outcome.stderr, /remedy: .*apt-get install -y iproute2 nftables wrk/);
});
