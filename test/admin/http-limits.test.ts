import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { type TestContext, test } from 'node:test';
import { type Handler, type HttpService, serveHttp } from '../../src/admin/http-service.ts';
import { freePort } from '../support/free-ports.ts';
import { ask, converse, memoryLog } from './client.ts';

const hello: Handler = () => ({ status: 200, body: 'hello\n' });

async function start(context: TestContext, handle: Handler = hello): Promise<{ port: number; service: HttpService }> {
  const service = await serveHttp({
    name: 'test',
    addresses: [{ ip: '127.0.0.1', port: 0 }],
    handle,
    log: memoryLog().log,
  });
  context.after(() => service.close(0));
  return { port: service.addresses[0]!.port, service };
}

test('a client that sends nothing, or half its headers, is cut off after two to three seconds', async (context) => {
  const { port } = await start(context);
  const starts = [null, 'GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: '];
  for (const { text, ms } of await Promise.all(starts.map((bytes) => converse(port, bytes)))) {
    assert.ok(ms > 1900 && ms < 15_000, `${ms} ms`);
    assert.match(text, /^HTTP\/1\.1 408 /);
  }
});

test('headers of more than 8 KiB are refused', async (context) => {
  const { port } = await start(context);
  const { text } = await converse(port, `GET / HTTP/1.1\r\nHost: localhost\r\nX-Large: ${'x'.repeat(8200)}\r\n\r\n`);
  assert.match(text, /^HTTP\/1\.1 431 /);
});

test('what is not HTTP is refused', async (context) => {
  const { port } = await start(context);
  assert.match((await converse(port, '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03')).text, /^HTTP\/1\.1 400 /);
});

test('a path that is no path is not found', async (context) => {
  const { port } = await start(context, ({ url }) => ({ status: 200, body: url.pathname }));
  const { text } = await converse(port, 'GET http://[ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n');
  assert.match(text, /^HTTP\/1\.1 404 /);
});

test('a client that sends its end after the request still gets the reply', async (context) => {
  const { port } = await start(context);
  const socket = net.connect({ host: '127.0.0.1', port, allowHalfOpen: true });
  socket.end('GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n');
  const chunks: Buffer[] = await socket.toArray();
  assert.match(Buffer.concat(chunks).toString(), /^HTTP\/1\.1 200 [\s\S]*\r\n\r\nhello\n$/);
});

test('an error in a handler is a 500 with its text, and the next request is served', async (context) => {
  const { port } = await start(context, ({ url }) => {
    if (url.pathname === '/bad') throw new Error('out of luck');
    return { status: 200, body: 'fine' };
  });
  const bad = await ask(port, '/bad');
  assert.deepEqual([bad.status, bad.text], [500, 'out of luck\n']);
  assert.equal((await ask(port, '/good')).text, 'fine');
});

test('closing refuses new connections at once and lets a running request finish', async (context) => {
  let finish = () => {};
  const running = new Promise<void>((resolve) => {
    finish = resolve;
  });
  let begun = () => {};
  const started = new Promise<void>((resolve) => {
    begun = resolve;
  });
  const { port, service } = await start(context, async () => {
    begun();
    await running;
    return { status: 200, body: 'late but whole' };
  });
  const answer = ask(port, '/');
  await started;
  const closed = service.close();
  const refused = net.connect(port, '127.0.0.1');
  const [error] = (await once(refused, 'error')) as [NodeJS.ErrnoException];
  assert.equal(error.code, 'ECONNREFUSED');
  finish();
  assert.equal((await answer).text, 'late but whole');
  await closed;
});

test('closing cuts what does not finish in time', async (context) => {
  let begun = () => {};
  const started = new Promise<void>((resolve) => {
    begun = resolve;
  });
  const { port, service } = await start(context, () => {
    begun();
    return new Promise(() => {});
  });
  const answer = assert.rejects(ask(port, '/'), { code: 'ECONNRESET' });
  await started;
  await service.close(50);
  await answer;
});

test('a port that is taken is an error that names it', async (context) => {
  const { port } = await start(context);
  await assert.rejects(
    serveHttp({ name: 'test', addresses: [{ ip: '127.0.0.1', port }], handle: hello, log: memoryLog().log }),
    {
      code: 'HTTP_BIND_FAILED',
      message: new RegExp(`^failed to bind to address 127\\.0\\.0\\.1:${port}: .*EADDRINUSE`),
    },
  );
});

test('when one of several addresses is taken, none stays open', async (context) => {
  const { port } = await start(context);
  const other = await freePort();
  const addresses = [
    { ip: '127.0.0.2', port: other },
    { ip: '127.0.0.1', port },
  ];
  await assert.rejects(serveHttp({ name: 'test', addresses, handle: hello, log: memoryLog().log }), {
    code: 'HTTP_BIND_FAILED',
  });
  const [error] = (await once(net.connect(other, '127.0.0.2'), 'error')) as [NodeJS.ErrnoException];
  assert.equal(error.code, 'ECONNREFUSED');
});
