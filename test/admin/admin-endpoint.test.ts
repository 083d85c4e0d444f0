import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { type TestContext, test } from 'node:test';
import { promisify } from 'node:util';
import { configDumpRoute, loggingRoute, quitRoute } from '../../src/admin/admin-routes.ts';
import { type AdminRoute, serveAdmin } from '../../src/admin/admin-server.ts';
import { buildConfigDump, type ConfigDump } from '../../src/admin/config-dump.ts';
import { expose } from '../../src/metrics/exposition.ts';
import { ADMIN_REJECTS } from '../../src/metrics/families.ts';
import { createRegistry } from '../../src/metrics/registry.ts';
import { type Ask, ask, memoryLog } from './client.ts';

const emptyDump: ConfigDump = buildConfigDump({
  mesh: { workloads: [], services: [], policies: [], stagedServices: {} },
  staticConfig: { workloads: [], policies: [], services: [] },
  version: {
    version: '1',
    gitRevision: 'abc',
    nodeVersion: '26',
    buildProfile: 'release',
    buildStatus: 'Clean',
    istioVersion: 'unknown',
    cryptoProvider: 'tls',
  },
  config: {},
  certificates: [],
  pods: [],
});

async function start(context: TestContext, more: readonly AdminRoute[] = []) {
  const { log, lines } = memoryLog();
  const registry = createRegistry();
  let filter = 'info,access=warn';
  let quits = 0;
  let quit = () => {};
  const quitting = new Promise<void>((resolve) => {
    quit = resolve;
  });
  const routes = [
    configDumpRoute(async () => emptyDump),
    loggingRoute({
      startup: 'info,access=warn',
      current: () => filter,
      async set(next) {
        filter = next;
      },
    }),
    quitRoute(() => {
      quits++;
      quit();
    }),
    ...more,
  ];
  const service = await serveAdmin({ routes, port: 0, rejects: registry.counter(ADMIN_REJECTS), log });
  context.after(() => service.close(0));
  return {
    port: service.addresses[0]!.port,
    addresses: service.addresses,
    registry,
    lines,
    quitting,
    quits: () => quits,
  };
}

test('listens on both loopback addresses and nowhere else', async (context) => {
  const { addresses, port } = await start(context);
  assert.deepEqual(addresses, [
    { ip: '127.0.0.1', port },
    { ip: '::1', port },
  ]);
  for (const { ip } of addresses) assert.equal((await ask(port, '/config_dump', { ip })).status, 200);
  const { stdout } = await promisify(execFile)('ss', ['-Hltn', `sport = :${port}`]);
  const bound = stdout
    .trim()
    .split('\n')
    .map((line) => line.split(/\s+/)[3]);
  assert.deepEqual(bound.sort(), [`127.0.0.1:${port}`, `[::1]:${port}`]);
});

test('the front page lists every path, also those of other parts', async (context) => {
  const extra: AdminRoute = {
    path: '/explain',
    methods: ['GET'],
    purpose: 'Why',
    handle: ({ url }) => ({ status: 200, body: url.searchParams.get('from') ?? '' }),
  };
  const { port } = await start(context, [extra]);
  const { headers, text } = await ask(port, '/');
  assert.match(headers['content-type']!, /^text\/html/);
  for (const path of ['/config_dump', '/logging', '/quitquitquit', '/explain']) assert.ok(text.includes(path), path);
  assert.equal((await ask(port, '/explain?from=demo/a')).text, 'demo/a');
});

test('the dump is indented JSON with the incumbent’s keys', async (context) => {
  const { port } = await start(context);
  for (const method of ['GET', 'POST']) {
    const { status, headers, text } = await ask(port, '/config_dump', { method });
    assert.deepEqual([status, headers['content-type']], [200, 'application/json']);
    assert.equal(text, `${JSON.stringify(emptyDump, null, 2)}\n`);
  }
});

for (const [method, path, status] of [
  ['GET', '/logging', 405],
  ['GET', '/quitquitquit', 405],
  ['GET', '/debug', 404],
  ['POST', '/logging/', 404],
] as const) {
  test(`${method} ${path} is answered ${status}`, async (context) => {
    const { port, quits } = await start(context);
    const answer = await ask(port, path, { method });
    assert.equal(answer.status, status);
    assert.equal(quits(), 0);
    if (path === '/logging') assert.match(answer.text, /^usage: POST \/logging/);
    else assert.equal(answer.text, '');
  });
}

test('the log level is shown, added to and reset', async (context) => {
  const { port } = await start(context);
  const say = async (query: string) => {
    const { status, text } = await ask(port, `/logging${query}`, { method: 'POST' });
    return `${status} ${text.split('\n')[0]}`;
  };
  assert.equal(await say(''), '200 current log level is info,access=warn');
  assert.equal(await say('?level=zds=debug'), '200 current log level is access=warn,zds=debug,info');
  assert.equal(await say('?level=warn'), '200 current log level is access=warn,zds=debug,warn');
  assert.equal(await say('?reset'), '200 current log level is access=warn,info');
  assert.equal(await say('?level=off'), '200 current log level is access=warn,off');
  assert.equal(await say('?reset=true&level=debug,zds=trace'), '200 current log level is access=warn,zds=trace,debug');
  assert.match(await say('?level=zds'), /^400 Invalid level provided: "zds" is neither a level/);
  assert.match(await say('?reset&level='), /^400 Invalid level provided: /);
  assert.equal(await say(''), '200 current log level is access=warn,zds=trace,debug');
});

test('/quitquitquit answers first and then ends the agent', async (context) => {
  const { port, quitting, quits } = await start(context);
  const { status, text } = await ask(port, '/quitquitquit', { method: 'POST' });
  assert.deepEqual([status, text], [200, 'shutdown now\n']);
  await quitting;
  assert.equal(quits(), 1);
});

const requests: readonly (readonly [what: string, path: string, ask: Ask, status: number, reason: string | null])[] = [
  ['an IPv4 host', '/', { headers: { host: '127.0.0.1' } }, 200, null],
  ['an IPv6 host with a port', '/', { headers: { host: '[::1]:15000' } }, 200, null],
  ['localhost in capitals', '/', { headers: { host: 'LOCALHOST:15000' } }, 200, null],
  [
    'a name that was made to point here',
    '/config_dump',
    { headers: { host: 'rebound.example:15000' } },
    403,
    'foreign-host',
  ],
  ['a name that begins like an address', '/', { headers: { host: '127.0.0.1.example' } }, 403, 'foreign-host'],
  ['a bracketed name', '/', { headers: { host: '[evil]' } }, 403, 'foreign-host'],
  [
    'another origin that posts',
    '/quitquitquit',
    { method: 'POST', headers: { origin: 'http://evil.example' } },
    403,
    'cross-origin',
  ],
  [
    'an opaque origin that posts',
    '/quitquitquit',
    { method: 'POST', headers: { origin: 'null' } },
    403,
    'cross-origin',
  ],
  [
    'another port of this machine that posts',
    '/quitquitquit',
    { method: 'POST', headers: { origin: 'http://127.0.0.1:8080' } },
    403,
    'cross-origin',
  ],
  [
    'a cross-site post without an origin',
    '/logging',
    { method: 'POST', headers: { 'sec-fetch-site': 'cross-site' } },
    403,
    'cross-origin',
  ],
  [
    'the own front page that posts',
    '/logging',
    { method: 'POST', headers: { host: 'localhost:1', origin: 'http://localhost:1', 'sec-fetch-site': 'same-origin' } },
    200,
    null,
  ],
  ['a link from elsewhere that only reads', '/', { headers: { 'sec-fetch-site': 'cross-site' } }, 200, null],
];

for (const [what, path, options, status, reason] of requests) {
  test(`${what} is ${status === 200 ? 'served' : `refused as ${reason}`}`, async (context) => {
    const { port, registry, lines, quits } = await start(context);
    const answer = await ask(port, path, options);
    assert.equal(answer.status, status);
    assert.equal(quits(), 0);
    const exposed = [...expose(registry)].join('');
    if (reason === null) {
      assert.doesNotMatch(exposed, /culvert_admin_rejects/);
    } else {
      assert.equal(answer.text, `refused: ${reason}\n`);
      assert.match(exposed, new RegExp(`^culvert_admin_rejects_total\\{reason="${reason}"\\} 1$`, 'm'));
      assert.match(lines.join(''), /warn\tadmin\trequest refused/);
    }
  });
}

test('curl and istioctl reach it as they do the incumbent', async (context) => {
  const { port } = await start(context);
  const { stdout } = await promisify(execFile)('curl', [
    '-sS',
    '-X',
    'POST',
    `http://localhost:${port}/logging?level=access=debug`,
  ]);
  assert.equal(stdout, 'current log level is access=debug,info\n');
});
