import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';

const program = new URL('serving-process.ts', import.meta.url).pathname;

/** Serves in a network namespace of its own whose loopback has no IPv6 address. */
function serveWithoutIpv6(...addresses: string[]) {
  const script = 'ip link set lo up && ip -6 addr flush dev lo && exec "$@"';
  const args = ['-Urn', 'sh', '-c', script, 'sh', process.execPath, program, ...addresses];
  return spawnSync('unshare', args, { encoding: 'utf8' });
}

test('is served over IPv4 alone', () => {
  const { stdout, stderr } = serveWithoutIpv6('127.0.0.1', '::1');
  assert.equal(stdout, '127.0.0.1\n', stderr);
});

test('has an error when only IPv6 was wanted', () => {
  const { status, stderr } = serveWithoutIpv6('::1');
  assert.notEqual(status, 0);
  assert.match(stderr, /failed to bind to address \[::1\]:0: .*EADDRNOTAVAIL/);
});
