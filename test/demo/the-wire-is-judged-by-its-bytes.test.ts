import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { type CapturedStream, captureLink } from '../../src/demo/link-capture.ts';
import { viewAsTls } from '../../src/demo/tls-stream.ts';
import { assertNothingOpened, openDescriptors } from '../support/descriptors.ts';
import { PATIENCE_MS } from '../support/patience.ts';
import { podNetwork } from '../support/pods.ts';

const record = (type: number, length: number, version = 0x0303) => {
  const bytes = Buffer.alloc(5 + length, 'x');
  bytes[0] = type;
  bytes.writeUInt16BE(version, 1);
  bytes.writeUInt16BE(length, 3);
  return bytes;
};
const hello = record(22, 200, 0x0301);

const streams: [what: string, bytes: Buffer, kind: 'tls' | 'not-tls', encrypted: number][] = [
  ['nothing', Buffer.alloc(0), 'tls', 0],
  ['a handshake and data', Buffer.concat([hello, record(20, 1), record(23, 100), record(23, 16384)]), 'tls', 2],
  ['a record that has not arrived in full', Buffer.concat([hello, record(23, 100).subarray(0, 50)]), 'tls', 1],
  ['HTTP', Buffer.from('GET / HTTP/1.1\r\nHost: example.com\r\n\r\n'), 'not-tls', 0],
  ['plain text after a handshake', Buffer.concat([hello, Buffer.from('GET / HTTP/1.1\r\n')]), 'not-tls', 0],
  ['data without a handshake', record(23, 100), 'not-tls', 0],
  ['a record of another version', Buffer.concat([hello, record(23, 100, 0x0302)]), 'not-tls', 0],
  ['a record that is too long', Buffer.concat([hello, record(23, 17_000)]), 'not-tls', 0],
];

for (const [what, bytes, kind, encrypted] of streams) {
  test(`${what} is ${kind}`, () => {
    const view = viewAsTls(bytes);
    assert.equal(view.kind, kind);
    if (view.kind === 'tls') assert.equal(view.encryptedRecords, encrypted);
  });
}

test('a link shows both directions of a connection, whole and in order, for IPv4 and IPv6', async (t) => {
  const network = await podNetwork(t);
  const server = await network.addPod('server');
  const client = await network.addPod('client');
  const link = captureLink(network.node.fd, server.link);
  const page = 'p'.repeat(300_000);
  const script = `require('http').createServer((q, r) => r.end('p'.repeat(300_000))).listen(8080, '::', () => console.log('up'))`;
  const web = server.start([process.execPath, '-e', script]);
  await new Promise((resolve) => web.stdout!.once('data', resolve));
  for (const host of [server.ipv4, `[${server.ipv6}]`]) {
    const { status } = await client.run([
      'curl',
      '-sS',
      '-o',
      '/dev/null',
      '--noproxy',
      '*',
      `http://${host}:8080/needle`,
    ]);
    assert.equal(status, 0);
  }
  const find = (ip: string, test: (stream: CapturedStream) => boolean) =>
    link.streams().find((stream) => (stream.sender.ip === ip || stream.receiver.ip === ip) && test(stream));
  for (const ip of [server.ipv4, server.ipv6!]) {
    const answer = () => find(ip, ({ sender }) => sender.port === 8080);
    for (const end = performance.now() + PATIENCE_MS; performance.now() < end && !answer()?.bytes.includes(page); )
      await delay(20);
    assert.ok(answer()!.bytes.toString().endsWith(page), `the answer of ${ip}`);
    assert.match(find(ip, ({ receiver }) => receiver.port === 8080)!.bytes.toString(), /^GET \/needle HTTP/);
  }
  link.close();
  web.kill();
});

test('an interface that is not there is an error', async (t) => {
  const network = await podNetwork(t);
  const before = openDescriptors();
  assert.throws(() => captureLink(network.node.fd, 'nothing0'), { code: 'ENODEV' });
  assertNothingOpened(before);
});
