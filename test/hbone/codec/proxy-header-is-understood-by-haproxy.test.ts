import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { buildProxyHeader } from '../../../src/hbone/proxy-protocol.ts';
import type { SocketAddress } from '../../../src/netns/address.ts';
import { PATIENCE_MS } from '../../support/patience.ts';

// An independent reader of the header; it answers with the addresses that it took from it.

const skip = spawnSync('haproxy', ['-v']).error === undefined ? false : 'haproxy is not installed';
let folder = '';
let socketPath = '';
let haproxy: ReturnType<typeof spawn> | null = null;

before(async () => {
  if (skip !== false) return;
  folder = await mkdtemp(join(tmpdir(), 'culvert-proxy-header-'));
  socketPath = join(folder, 'socket');
  const configuration = join(folder, 'haproxy.cfg');
  await writeFile(
    configuration,
    [
      'defaults',
      '  mode http',
      '  timeout client 10s',
      'frontend addresses',
      `  bind unix@${socketPath} accept-proxy`,
      '  http-request return status 200 content-type text/plain lf-string "%[src] %[src_port] %[dst] %[dst_port]"',
      '',
    ].join('\n'),
  );
  haproxy = spawn('haproxy', ['-db', '-f', configuration], { stdio: ['ignore', 'ignore', 'inherit'] });
  while (!(await answers(socketPath))) assert.equal(haproxy.exitCode, null, 'haproxy ended');
});

after(async () => {
  if (haproxy !== null && haproxy.exitCode === null) {
    haproxy.kill('SIGKILL');
    await once(haproxy, 'exit');
  }
  if (folder !== '') await rm(folder, { recursive: true });
});

const V4: SocketAddress = { ip: '192.168.1.2', port: 56_324 };
const V6: SocketAddress = { ip: '2001:db8::1', port: 443 };

const PAIRS: ReadonlyArray<{ title: string; source: SocketAddress; destination: SocketAddress; seen: string }> = [
  { title: 'IPv4', source: V4, destination: { ip: '10.0.0.1', port: 80 }, seen: '192.168.1.2 56324 10.0.0.1 80' },
  { title: 'IPv6', source: V6, destination: { ip: '::1', port: 1 }, seen: '2001:db8::1 443 ::1 1' },
  { title: 'IPv4 to IPv6', source: V4, destination: V6, seen: '::ffff:192.168.1.2 56324 2001:db8::1 443' },
  { title: 'IPv6 to IPv4', source: V6, destination: V4, seen: '2001:db8::1 443 ::ffff:192.168.1.2 56324' },
];

for (const { title, source, destination, seen } of PAIRS) {
  test(`haproxy reads the addresses of ${title}`, { skip, timeout: PATIENCE_MS }, async () => {
    const socket = net.connect(socketPath);
    socket.write(buildProxyHeader(source, destination, 'spiffe://cluster.local/ns/a/sa/b'));
    socket.write('GET / HTTP/1.0\r\n\r\n');
    const answer = Buffer.concat(await Array.fromAsync(socket)).toString();
    assert.equal(answer.split('\r\n\r\n')[1], seen);
  });
}

/** Whether something listens there; waits a little when not. */
async function answers(path: string): Promise<boolean> {
  const socket = net.connect(path);
  const connected = await once(socket, 'connect').then(
    () => true,
    () => new Promise<false>((resolve) => setTimeout(resolve, 10, false)),
  );
  socket.destroy();
  return connected;
}
