import assert from 'node:assert/strict';
import { test } from 'node:test';
import { buildProxyHeader } from '../../../src/hbone/proxy-protocol.ts';
import type { SocketAddress } from '../../../src/netns/address.ts';
import { octets, toHex } from './support/hex.ts';

const SIGNATURE = '0d0a0d0a 000d0a51 5549540a';
const V4: SocketAddress = { ip: '192.168.1.2', port: 56_324 };
const V4_OTHER: SocketAddress = { ip: '10.0.0.1', port: 443 };
const V6: SocketAddress = { ip: '2001:db8::1', port: 65_535 };
const V6_OTHER: SocketAddress = { ip: 'fd00:1:2:3:4:5:6:7', port: 1 };

const HEADERS: ReadonlyArray<{
  title: string;
  source: SocketAddress;
  destination: SocketAddress;
  identity: string | null;
  octets: string;
}> = [
  {
    title: 'IPv4',
    source: V4,
    destination: V4_OTHER,
    identity: null,
    octets: '21 11 000c c0a80102 0a000001 dc04 01bb',
  },
  {
    title: 'IPv6',
    source: V6,
    destination: V6_OTHER,
    identity: null,
    octets: '21 21 0024 20010db8000000000000000000000001 fd000001000200030004000500060007 ffff 0001',
  },
  {
    title: 'IPv4 to IPv6, mapped',
    source: V4,
    destination: V6_OTHER,
    identity: null,
    octets: '21 21 0024 00000000000000000000ffffc0a80102 fd000001000200030004000500060007 dc04 0001',
  },
  {
    title: 'IPv6 to IPv4, mapped',
    source: V6,
    destination: V4,
    identity: null,
    octets: '21 21 0024 20010db8000000000000000000000001 00000000000000000000ffffc0a80102 ffff dc04',
  },
  {
    title: 'the identity of the source in TLV 0xD0',
    source: V4,
    destination: V4_OTHER,
    identity: 'spiffe://td/ns/a/sa/b',
    octets: `21 11 0024 c0a80102 0a000001 dc04 01bb d0 0015 ${Buffer.from('spiffe://td/ns/a/sa/b').toString('hex')}`,
  },
  {
    title: 'an identity longer than 255 octets',
    source: V4,
    destination: V4_OTHER,
    identity: 'x'.repeat(300),
    octets: `21 11 013b c0a80102 0a000001 dc04 01bb d0 012c ${'78'.repeat(300)}`,
  },
];

for (const { title, source, destination, identity, octets: hex } of HEADERS) {
  test(`PROXY version 2: ${title}`, () => {
    assert.equal(toHex(buildProxyHeader(source, destination, identity)), toHex(octets(SIGNATURE + hex)));
  });
}

test('PROXY version 2: what cannot be said is an error', () => {
  for (const ip of ['', 'example.test', '10.0.0', '::1%eth0']) {
    assert.throws(() => buildProxyHeader({ ip, port: 1 }, V4, null), { code: 'PROXY_HEADER_INVALID' });
    assert.throws(() => buildProxyHeader(V4, { ip, port: 1 }, null), { code: 'PROXY_HEADER_INVALID' });
  }
  assert.throws(() => buildProxyHeader(V4, V4, 'x'.repeat(65_536)), { code: 'PROXY_HEADER_INVALID' });
});
