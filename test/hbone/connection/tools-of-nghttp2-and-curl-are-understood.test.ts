/**
 * Interoperation with programs in C that share no code with Node's HTTP/2: nghttpx carries CONNECT streams as a client
 * and as a server (curl talks through it), nghttp and h2load ask what an HBONE port has to refuse properly.
 */

import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { promisify } from 'node:util';
import { createOwnedProcesses } from '../../../src/demo/processes.ts';
import { freePorts } from '../../support/free-ports.ts';
import {
  application,
  dial,
  IDENTITY,
  LOCALHOST,
  type PlaneUnderTest,
  patiently,
  planeUnderTest,
  startPod,
  tunnelTo,
  until,
} from '../../worker/support/plane-under-test.ts';
import { certificateFiles } from './support/certificate-files.ts';
import { tlsClient } from './support/tls-client.ts';

const processes = createOwnedProcesses();
const run = promisify(execFile);

const missing = (program: string) => spawnSync(program, ['--version']).error !== undefined;
const skipWithout = (...programs: string[]) => {
  const absent = programs.filter(missing);
  return absent.length > 0 && `not installed: ${absent.join(', ')}`;
};
/** curl speaks HTTP/2 to a proxy since 8.1. */
const curlLacksHttp2Proxy = !spawnSync('curl', ['--help', 'all'], { encoding: 'utf8' }).stdout?.includes(
  '--proxy-http2',
);

/** Runs a server program until the end of the test; resolves when its port takes connections. */
async function startServer(t: TestContext, argv: readonly string[], port: number): Promise<void> {
  const child: ChildProcess = processes.start(argv);
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk: Buffer) => (output += chunk));
  t.after(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  });
  await until(`${argv[0]} does not listen: ${output}`, async () => {
    assert.equal(child.exitCode, null, `${argv[0]} has ended: ${output}`);
    const probe = connect(port, LOCALHOST);
    const connected = await new Promise<boolean>((resolve) => {
      probe.once('connect', () => resolve(true)).once('error', () => resolve(false));
    });
    probe.destroy();
    return connected;
  });
}

async function listening(t: TestContext, server: Server): Promise<number> {
  server.listen(0, LOCALHOST);
  await once(server, 'listening');
  t.after(() => server.close());
  return (server.address() as { port: number }).port;
}

const NGHTTPX = ['nghttpx', '--conf=/dev/null', '--single-process', '--workers=1', '--http2-proxy', '--no-ocsp'];

/** An HTTP server that sends back the body it gets, and its SHA-256. */
async function echoingHttpServer(t: TestContext): Promise<number> {
  const server = createHttpServer((request, response) => {
    const hash = createHash('sha256');
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => {
      hash.update(chunk);
      chunks.push(chunk);
    });
    request.on('end', () => response.setHeader('x-digest', hash.digest('hex')).end(Buffer.concat(chunks)));
  });
  t.after(() => server.closeAllConnections());
  return listening(t, server);
}

async function post(t: TestContext, port: number, body: Buffer, ...proxy: string[]): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'culvert-interop-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'body');
  writeFileSync(file, body);
  const { stdout } = await run(
    'curl',
    ['-sS', '--max-time', '30', ...proxy, '--proxytunnel', '--data-binary', `@${file}`, `http://${LOCALHOST}:${port}/`],
    { encoding: 'buffer', maxBuffer: 64 << 20 },
  );
  assert.ok(stdout.equals(body), 'other bytes came back');
}

test('curl reaches an application through nghttpx as the client of a pod', {
  skip: skipWithout('nghttpx'),
}, async (t) => {
  const rig = await planeUnderTest(t);
  rig.app = await echoingHttpServer(t);
  startPod(rig);
  const { key, chain } = await certificateFiles(t, rig);
  const [front] = (await freePorts(1)) as [number];
  await startServer(
    t,
    [
      ...NGHTTPX,
      `--frontend=${LOCALHOST},${front};no-tls`,
      `--backend=${LOCALHOST},${rig.ports.hbone};;tls;proto=h2`,
      `--client-private-key-file=${key}`,
      `--client-cert-file=${chain}`,
      // It knows host names only.
      '--insecure',
    ],
    front,
  );
  const proxy = ['--proxy', `http://${LOCALHOST}:${front}`];
  await Promise.all([1, 1000, 3_000_000, 300_000].map((size) => post(t, rig.app, randomBytes(size), ...proxy)));
  assert.match(rig.log(), new RegExp(`src.identity="${IDENTITY}"`));
  await until('streams stay open', () => rig.plane.snapshot()[0]!.connections.length === 0);
});

test('curl reaches an application by a tunnel of its own', {
  skip: curlLacksHttp2Proxy && 'this curl has no --proxy-http2 (8.1 has)',
}, async (t) => {
  const rig = await planeUnderTest(t);
  rig.app = await echoingHttpServer(t);
  startPod(rig);
  const { key, chain } = await certificateFiles(t, rig);
  const proxy = ['--proxy-http2', '--proxy', `https://${LOCALHOST}:${rig.ports.hbone}`, '--proxy-insecure'];
  await post(t, rig.app, randomBytes(3_000_000), ...proxy, '--proxy-key', key, '--proxy-cert', chain);
});

/** An HTTP/1.1 proxy that does nothing but CONNECT. */
async function connectProxy(t: TestContext): Promise<{ port: number; asked: string[] }> {
  const asked: string[] = [];
  const sockets = new Set<Socket>();
  const server = createHttpServer();
  server.on('connect', (request, client: Socket, head: Buffer) => {
    asked.push(request.url!);
    const [host, port] = request.url!.split(':');
    const target = connect({ host: host!, port: Number(port), allowHalfOpen: true }, () => {
      client.write('HTTP/1.1 200 OK\r\n\r\n');
      target.write(head);
      client.pipe(target).pipe(client);
    });
    for (const socket of [client, target]) {
      sockets.add(socket);
      socket.on('error', () => {});
    }
  });
  t.after(() => {
    for (const socket of sockets) socket.destroy();
  });
  return { port: await listening(t, server), asked };
}

test('tunnels of a pod end at nghttpx as at any peer', { skip: skipWithout('nghttpx') }, async (t) => {
  const rig = await planeUnderTest(t);
  const app = await application(t, { allowHalfOpen: true });
  app.server.on('connection', (socket: Socket) => socket.pipe(socket));
  const proxy = await connectProxy(t);
  const { key, chain, roots } = await certificateFiles(t, rig);
  const [front] = (await freePorts(1)) as [number];
  await startServer(
    t,
    [
      ...NGHTTPX,
      `--frontend=${LOCALHOST},${front}`,
      `--backend=${LOCALHOST},${proxy.port}`,
      // Eight by default; others would wait.
      '--backend-connections-per-host=100',
      '--verify-client',
      `--verify-client-cacert=${roots}`,
      key,
      chain,
    ],
    front,
  );
  const plan = tunnelTo({ ...rig.ports, hbone: front }, app.port);
  rig.answer = () => plan;
  startPod(rig);
  await Promise.all(
    Array.from({ length: 20 }, async (_, i) => {
      const sent = randomBytes(i * 50_000 + 1);
      const { socket } = await dial(t, rig.ports.outbound);
      const chunks: Buffer[] = [];
      let length = 0;
      const all = new Promise<void>((resolve, reject) => {
        socket.on('data', (chunk: Buffer) => {
          chunks.push(chunk);
          length += chunk.length;
          if (length >= sent.length) resolve();
        });
        socket.once('close', () => reject(new Error(`closed after ${length} of ${sent.length} bytes`)));
      });
      socket.write(sent);
      await patiently('bytes are missing', all);
      assert.ok(Buffer.concat(chunks).equals(sent));
      // An end of one direction is not passed on to HTTP/1.1 by nghttpx.
      socket.resetAndDestroy();
    }),
  );
  assert.equal(proxy.asked.length, 20);
  assert.ok(proxy.asked.every((url) => url === `${LOCALHOST}:${app.port}`));
  assert.equal(rig.plane.pool.size, 1, 'they share a tunnel');
  await until('connections stay', () => rig.plane.snapshot()[0]!.connections.length === 0);
});

test('a request of nghttp that is no CONNECT is answered 400', { skip: skipWithout('nghttp') }, async (t) => {
  const rig = await planeUnderTest(t);
  startPod(rig);
  const { key, chain } = await certificateFiles(t, rig);
  const url = `https://${LOCALHOST}:${rig.ports.hbone}/`;
  const { stdout } = await run('nghttp', ['-nv', '-y', '-t', '20', `--key=${key}`, `--cert=${chain}`, url, `${url}b`]);
  assert.equal(stdout.match(/:status: 400/g)?.length, 2, stdout);
  assert.doesNotMatch(stdout, /RST_STREAM|error_code=(?!NO_ERROR)/);
});

/** Adds TLS with a client certificate for programs that have none. */
async function tlsInFront(t: TestContext, rig: PlaneUnderTest): Promise<number> {
  const openTls = await tlsClient(rig);
  const server = createServer((client) => {
    const secure = openTls();
    client.pipe(secure).pipe(client);
    for (const socket of [client, secure]) socket.on('error', () => {});
    t.after(() => {
      client.destroy();
      secure.destroy();
    });
  });
  return listening(t, server);
}

test('every request of h2load is answered, whatever it is', { skip: skipWithout('h2load') }, async (t) => {
  const rig = await planeUnderTest(t);
  startPod(rig);
  const port = await tlsInFront(t, rig);
  // More streams at a time than are allowed, so that it has to keep to SETTINGS_MAX_CONCURRENT_STREAMS.
  const args = ['-n', '5000', '-c', '4', '-m', '500', `http://${LOCALHOST}:${port}/`];
  const { stdout } = await run('h2load', args, { timeout: 60_000 });
  assert.match(stdout, /requests: 5000 total, 5000 started, 5000 done, 0 succeeded, 5000 failed, 0 errored, 0 timeout/);
  assert.match(stdout, /status codes: 0 2xx, 0 3xx, 5000 4xx, 0 5xx/);
});
