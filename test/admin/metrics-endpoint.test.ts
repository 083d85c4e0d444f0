import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { type TestContext, test } from 'node:test';
import zlib from 'node:zlib';
import { serveMetrics } from '../../src/admin/metrics-server.ts';
import { ask, memoryLog } from './client.ts';

const pieces = ['# HELP a A.\n', '# TYPE a gauge\n', 'a 1\n'.repeat(20_000), '# EOF\n'];
const whole = pieces.join('');

async function start(context: TestContext, scrape: () => Promise<Iterable<string>> = async () => pieces) {
  const { log, lines } = memoryLog();
  const service = await serveMetrics({ scrape, addresses: [{ ip: '127.0.0.1', port: 0 }], log });
  context.after(() => service.close(0));
  return { port: service.addresses[0]!.port, lines, service };
}

for (const [method, path, status] of [
  ['GET', '/metrics', 200],
  ['GET', '/stats/prometheus', 200],
  ['POST', '/metrics', 200],
  ['GET', '/metrics?name=a', 200],
  ['GET', '/', 404],
  ['GET', '/metrics/', 404],
] as const) {
  test(`${method} ${path} is answered ${status}`, async (context) => {
    const { port } = await start(context);
    const answer = await ask(port, path, { method });
    assert.equal(answer.status, status);
    assert.equal(answer.text, status === 200 ? whole : '');
  });
}

for (const [accept, type] of [
  [undefined, 'text/plain; charset=utf-8'],
  ['*/*', 'text/plain; charset=utf-8'],
  ['application/openmetrics-text', 'application/openmetrics-text;charset=utf-8;version=1.0.0'],
  [
    'text/plain;q=0.5, Application/OpenMetrics-Text;version=0.0.1;q=0.1',
    'application/openmetrics-text;charset=utf-8;version=1.0.0',
  ],
  ['application/openmetrics-text-2', 'text/plain; charset=utf-8'],
] as const) {
  test(`Accept: ${accept} gets ${type}`, async (context) => {
    const { port } = await start(context);
    const { headers, text } = await ask(port, '/metrics', { headers: accept === undefined ? {} : { accept } });
    assert.equal(headers['content-type'], type);
    assert.equal(text, whole);
  });
}

for (const [accept, encoding, decode] of [
  ['gzip', 'gzip', zlib.gunzipSync],
  ['br', 'br', zlib.brotliDecompressSync],
  ['zstd', 'zstd', zlib.zstdDecompressSync],
  ['deflate', 'deflate', zlib.inflateSync],
  ['gzip, deflate, br, zstd', 'zstd', zlib.zstdDecompressSync],
  ['gzip;q=1.0, zstd;q=0.5', 'gzip', zlib.gunzipSync],
  ['identity', undefined, (body: Buffer) => body],
  ['compress', undefined, (body: Buffer) => body],
] as const) {
  test(`Accept-Encoding: ${accept} gets ${encoding ?? 'plain'} with the same content`, async (context) => {
    const { port } = await start(context);
    const { headers, body } = await ask(port, '/metrics', { headers: { 'accept-encoding': accept } });
    assert.equal(headers['content-encoding'], encoding);
    assert.equal(headers.vary, 'accept-encoding');
    assert.equal(decode(body).toString(), whole);
    if (encoding !== undefined) assert.ok(body.length < whole.length / 10);
  });
}

test('a scrape that fails is answered 500 with the reason', async (context) => {
  const { port } = await start(context, () => Promise.reject(new Error('no registry')));
  const { status, text } = await ask(port, '/metrics');
  assert.deepEqual([status, text], [500, 'no registry\n']);
});

test('a scrape that fails half-way is broken off, not ended as if whole', async (context) => {
  function* failing() {
    yield 'a 1\n'.repeat(1000);
    throw new Error('lost a worker');
  }
  const { port, lines } = await start(context, async () => failing());
  await assert.rejects(ask(port, '/metrics'), { code: 'ECONNRESET' });
  assert.match(lines.join(''), /warn\tmetrics\treply broken off\tpath="\/metrics" error="lost a worker"/);
});

test('a client that leaves half-way stops the work and is nobody’s error', async (context) => {
  let made = 0;
  let ended: (() => void) | null = null;
  const stopped = new Promise<void>((resolve) => {
    ended = resolve;
  });
  function* endless() {
    try {
      for (;;) {
        made++;
        yield 'a 1\n'.repeat(8192);
      }
    } finally {
      ended!();
    }
  }
  const { port, lines } = await start(context, async () => endless());
  const socket = net.connect(port, '127.0.0.1');
  socket.write('GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n');
  await once(socket, 'data');
  socket.pause();
  socket.destroy();
  await stopped;
  assert.ok(made < 2000);
  assert.deepEqual(lines, []);
});

test('other requests are served while a large reply is on its way', async (context) => {
  const most = 1_000_000;
  const begun = Promise.withResolvers<void>();
  let served = false;
  let made = 0;
  function* large() {
    begun.resolve();
    // Pieces that no client has to make room for first.
    while (!served && made++ < most) yield '';
    yield 'a 1\n';
  }
  let scrapes = 0;
  const { port } = await start(context, async () => (scrapes++ === 0 ? large() : pieces));
  const reply = ask(port, '/metrics');
  await begun.promise;
  assert.equal((await ask(port, '/metrics')).text, whole);
  assert.ok(made < most, `${made} pieces were made first`);
  served = true;
  assert.equal((await reply).text, 'a 1\n');
});
