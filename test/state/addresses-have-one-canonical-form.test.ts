import assert from 'node:assert/strict';
import { isIP, isIPv6 } from 'node:net';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  canonicalIp,
  cidrContains,
  formatCidr,
  formatSocketAddress,
  ipFromBytes,
  isLoopback,
  parseCidr,
  parseIp,
  parseSocketAddress,
} from '../../src/netns/address.ts';

const canonical: readonly [given: string, expected: string | null][] = [
  ['10.0.0.1', '10.0.0.1'],
  ['255.255.255.255', '255.255.255.255'],
  ['::ffff:10.0.0.1', '10.0.0.1'],
  ['::FFFF:0a00:0001', '10.0.0.1'],
  ['2001:DB8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
  ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
  ['0:0:0:0:0:0:0:0', '::'],
  ['::1', '::1'],
  ['1::', '1::'],
  ['fe80::1', 'fe80::1'],
  ['64:ff9b::192.0.2.1', '64:ff9b::c000:201'],
  ['', null],
  ['10.0.0', null],
  ['10.0.0.256', null],
  ['10.0.0.01', null],
  ['10.0.0.1.', null],
  ['10.0.0.1.1', null],
  ['1:2:3:4:5:6:7', null],
  ['1:2:3:4:5:6:7:8:9', null],
  ['1::2::3', null],
  ['1:2:3:4:5:6:7::8', null],
  [':::', null],
  ['12345::', null],
  ['fe80::1%eth0', null],
  ['g::', null],
  ['1.2.3.4::', null],
];

for (const [given, expected] of canonical) {
  test(`the address "${given}" ${expected === null ? 'is refused' : `is written ${expected}`}`, () => {
    assert.equal(canonicalIp(given), expected);
  });
}

const sockets: readonly [given: string, expected: { ip: string; port: number } | null][] = [
  ['10.0.0.1:80', { ip: '10.0.0.1', port: 80 }],
  ['[2001:DB8::1]:15008', { ip: '2001:db8::1', port: 15008 }],
  ['[::ffff:10.0.0.1]:80', { ip: '10.0.0.1', port: 80 }],
  ['10.0.0.1:0', { ip: '10.0.0.1', port: 0 }],
  ['10.0.0.1:65536', null],
  ['10.0.0.1:080', null],
  ['10.0.0.1:', null],
  ['10.0.0.1:+80', null],
  ['10.0.0.1', null],
  [':80', null],
  ['[10.0.0.1]:80', null],
  ['2001:db8::1:80', null],
  ['[::1:80', null],
  ['::1]:80', null],
  ['host:80', null],
];

for (const [given, expected] of sockets) {
  test(`the socket address "${given}" ${expected === null ? 'is refused' : 'is read'}`, () => {
    assert.deepEqual(parseSocketAddress(given), expected);
  });
}

const blocks: readonly [block: string, ip: string, contains: boolean][] = [
  ['10.0.0.0/8', '10.255.0.1', true],
  ['10.0.0.0/8', '11.0.0.1', false],
  ['10.1.2.3/8', '10.9.9.9', true],
  ['0.0.0.0/0', '203.0.113.9', true],
  ['0.0.0.0/0', '::1', false],
  ['::/0', '10.0.0.1', false],
  ['::/0', '2001:db8::1', true],
  ['2001:db8::/33', '2001:db8:7fff::1', true],
  ['2001:db8::/33', '2001:db8:8000::1', false],
  ['2001:db8::/127', '2001:db8::1', true],
  ['2001:db8::/127', '2001:db8::2', false],
  ['192.0.2.7', '192.0.2.7', true],
  ['192.0.2.7', '192.0.2.8', false],
  ['::ffff:10.0.0.0/104', '10.2.3.4', true],
  ['255.255.255.255/32', '255.255.255.255', true],
];

for (const [block, ip, contains] of blocks) {
  test(`the block ${block} ${contains ? 'holds' : 'does not hold'} ${ip}`, () => {
    assert.equal(cidrContains(parseCidr(block)!, parseIp(ip)!), contains);
  });
}

test('a block is written masked and with its length', () => {
  assert.equal(formatCidr(parseCidr('10.1.2.3/16')!), '10.1.0.0/16');
  assert.equal(formatCidr(parseCidr('2001:db8:ffff::1/40')!), '2001:db8:ff00::/40');
  assert.equal(formatCidr(parseCidr('192.0.2.7')!), '192.0.2.7/32');
});

for (const given of [
  '10.0.0.0/33',
  '::/129',
  '10.0.0.0/',
  '10.0.0.0/-1',
  '10.0.0.0/8/8',
  '::ffff:10.0.0.0/95',
  'x/8',
]) {
  test(`the block "${given}" is refused`, () => assert.equal(parseCidr(given), null));
}

test('loopback is 127.0.0.0/8 and ::1', () => {
  assert.deepEqual(['127.0.0.1', '127.255.0.1', '::1', '128.0.0.1', '::2', '127::1'].map(isLoopback), [
    true,
    true,
    true,
    false,
    false,
    false,
  ]);
});

test('bytes become text only when there are 4 or 16 of them', () => {
  assert.equal(ipFromBytes(Uint8Array.of(10, 0, 0, 255)), '10.0.0.255');
  assert.equal(ipFromBytes(Uint8Array.from([...new Array(15).fill(0), 1])), '::1');
  assert.equal(ipFromBytes(Uint8Array.from([...new Array(10).fill(0), 255, 255, 10, 0, 0, 1])), '10.0.0.1');
  assert.equal(ipFromBytes(new Uint8Array(5)), null);
});

test('any text that the platform takes for an address is read, and any other refused', () => {
  const anyIp = fc.oneof(fc.ipV4(), fc.ipV4Extended(), fc.ipV6(), fc.string(), fc.stringMatching(/^[0-9a-f:.]{0,20}$/));
  fc.assert(
    fc.property(anyIp, (given) => {
      assert.equal(canonicalIp(given) !== null, isIP(given) !== 0 && !given.includes('%'), given);
    }),
    { numRuns: 2000 },
  );
});

test('a canonical address is its own canonical form, and the platform reads it as the same bits', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), (bytes) => {
      const ip = ipFromBytes(bytes)!;
      assert.equal(canonicalIp(ip), ip);
      if (isIPv6(ip)) assert.equal(new URL(`http://[${ip}]/`).hostname, `[${ip}]`);
    }),
  );
});

test('formatting and parsing a socket address gives it back', () => {
  fc.assert(
    fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), fc.nat(65535), (given, port) => {
      const address = { ip: canonicalIp(given)!, port };
      assert.deepEqual(parseSocketAddress(formatSocketAddress(address)), address);
    }),
  );
});
