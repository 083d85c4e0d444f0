import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { readNamespace } from '../../src/cni/kube/objects.ts';
import { createKubeApi } from '../../src/kube/api.ts';
import { metadataOf, text } from '../../src/kube/object.ts';
import { startReflector } from '../../src/kube/reflector.ts';
import { eventually } from '../cni/support/eventually.ts';

interface Watch {
  readonly version: string;
  event(type: string, object: unknown): void;
  text(text: string): void;
  end(): void;
}

/** An API server that does what the test says; real ones cannot be told to forget or to stall. */
async function apiServer(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'culvert-fake-api-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  execFileSync(
    'openssl',
    [
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', 'tls.key'],
      ...['-out', 'ca.crt', '-days', '2', '-subj', '/CN=test', '-addext', 'subjectAltName=IP:127.0.0.1'],
    ],
    { cwd: folder, stdio: 'pipe' },
  );
  writeFileSync(join(folder, 'token'), 'secret\n');
  const state = {
    objects: new Map<string, { name: string; labels: Record<string, string>; version: string }>(),
    version: 10,
    lists: 0,
    watches: [] as Watch[],
    /** Answers a list instead of the objects. */
    broken: null as null | ((response: ServerResponse) => void),
    /** Answers a watch. */
    brokenWatch: null as null | ((response: ServerResponse) => void),
    /** The oldest version that a watch may begin at. */
    oldest: 0,
  };
  const tls = { cert: readFileSync(join(folder, 'ca.crt')), key: readFileSync(join(folder, 'tls.key')) };
  const server: Server = createServer(tls, (request: IncomingMessage, response) => {
    assert.equal(request.headers.authorization, 'Bearer secret');
    const query = new URL(request.url!, 'https://x').searchParams;
    if (query.get('watch') === null) {
      state.lists++;
      if (state.broken !== null) return state.broken(response);
      // Two pages, so that pages are followed.
      const all = [...state.objects.values()].map(objectOf);
      const second = query.get('continue') === 'more';
      const half = Math.ceil(all.length / 2);
      const metadata = { resourceVersion: String(state.version), ...(second ? {} : { continue: 'more' }) };
      return void response.end(JSON.stringify({ metadata, items: second ? all.slice(half) : all.slice(0, half) }));
    }
    if (state.brokenWatch !== null) return state.brokenWatch(response);
    const version = query.get('resourceVersion')!;
    response.writeHead(200);
    response.flushHeaders();
    const watch: Watch = {
      version,
      event: (type, object) => response.write(`${JSON.stringify({ type, object })}\n`),
      text: (text) => response.write(text),
      end: () => response.end(),
    };
    state.watches.push(watch);
    if (Number(version) < state.oldest) {
      watch.event('ERROR', { kind: 'Status', code: 410, message: 'too old resource version' });
      watch.end();
      return;
    }
    // What a watch that died was told of in vain.
    for (const object of state.objects.values()) {
      if (Number(object.version) > Number(version)) watch.event('ADDED', objectOf(object));
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const api = createKubeApi({
    host: '127.0.0.1',
    port: (server.address() as AddressInfo).port,
    serviceAccountDir: folder,
  });
  const changes: string[] = [];
  const warnings: string[] = [];
  const infos: string[] = [];
  const follow = (stallMs = 60_000) => {
    const reflector = startReflector({
      ...{ api, path: '/api/v1/namespaces', read: readNamespace, stallMs },
      key: (object) => text(metadataOf(object).name),
      onChange: (before, after) => void changes.push(`${before?.name ?? '-'} ${after?.name ?? '-'}`),
      log: {
        info: (_, message) => void infos.push(message),
        warn: (_, message, fields) => void warnings.push(`${message}: ${fields?.error}`),
      },
    });
    t.after(() => {
      reflector.close();
      api.close();
      server.closeAllConnections();
      server.close();
    });
    return reflector;
  };
  const put = (name: string, labels: Record<string, string> = {}) => {
    const object = { name, labels, version: String(++state.version) };
    state.objects.set(name, object);
    return objectOf(object);
  };
  return {
    state,
    follow,
    put,
    changes,
    warnings,
    infos,
    names: (r: ReturnType<typeof follow>) => [...r.values()].map(({ name }) => name),
  };
}

function objectOf({ name, labels, version }: { name: string; labels: Record<string, string>; version: string }) {
  return { metadata: { name, labels, resourceVersion: version } };
}

test('a watch goes on where the one before ended, without listing again', async (t) => {
  const { state, follow, put, changes, names } = await apiServer(t);
  put('a');
  put('b');
  const reflector = follow();
  await reflector.synced;
  assert.deepEqual(names(reflector), ['a', 'b']);
  await eventually('watching', () => state.watches.length === 1);
  state.watches[0]!.event('ADDED', put('c'));
  state.watches[0]!.event('BOOKMARK', { metadata: { resourceVersion: '99' } });
  await eventually('heard', () => changes.includes('- c'));
  state.watches[0]!.end();
  await eventually('watching again', () => state.watches.length === 2);
  assert.equal(state.watches[1]!.version, '99');
  const lists = state.lists;
  state.watches[1]!.event('DELETED', put('a'));
  await eventually('gone', () => changes.includes('a -'));
  assert.deepEqual(names(reflector), ['b', 'c']);
  assert.equal(state.lists, lists);
});

test('a version that the API server has forgotten is listed anew, and only what changed is told', async (t) => {
  const { state, follow, put, changes, names } = await apiServer(t);
  put('kept');
  put('lost');
  const reflector = follow();
  await reflector.synced;
  await eventually('watching', () => state.watches.length === 1);
  changes.length = 0;
  state.objects.delete('lost');
  put('new');
  state.oldest = ++state.version;
  state.watches[0]!.end();
  await eventually('listed', () => changes.length === 2);
  assert.deepEqual(changes.sort(), ['- new', 'lost -']);
  assert.deepEqual(names(reflector), ['kept', 'new']);
});

test('a watch that falls silent is taken for dead', async (t) => {
  const { state, follow, put, changes, warnings } = await apiServer(t);
  const reflector = follow(400);
  await reflector.synced;
  await eventually('watching again', () => state.watches.length >= 2);
  assert.match(warnings[0]!, /nothing came for 400 ms/);
  state.watches.at(-1)!.event('ADDED', put('a'));
  await eventually('heard', () => changes.includes('- a'));
});

test('watches that bring an event each before they break cost a line a minute', async (t) => {
  const { state, follow, put, changes, warnings, infos } = await apiServer(t);
  const reflector = follow();
  await reflector.synced;
  for (let n = 0; n < 5; n++) {
    await eventually(`watch ${n}`, () => state.watches.length > n);
    state.watches[n]!.event('ADDED', put(`a${n}`));
    await eventually('heard', () => changes.includes(`- a${n}`));
    assert.equal(reflector.problem(), null);
    if (n === 4) break;
    state.watches[n]!.text('nonsense\n');
    await eventually('broken', () => reflector.failures() === n + 1);
  }
  assert.deepEqual(
    warnings.map((line) => line.replace(/.*: /, '')),
    ['an event of a watch is not JSON'],
  );
  assert.equal(infos.filter((line) => line === 'objects are followed again').length, 1);
});

for (const [what, spoil] of [
  ['half an event', (watch: Watch) => watch.text('{"type":"ADDED","obj')],
  ['an event that is no JSON', (watch: Watch) => watch.text('nonsense\n')],
  ['an event without a name', (watch: Watch) => watch.event('ADDED', { metadata: {} })],
] as const) {
  test(`${what} costs a watch at most`, async (t) => {
    const { state, follow, put, changes } = await apiServer(t);
    const reflector = follow();
    await reflector.synced;
    await eventually('watching', () => state.watches.length === 1);
    spoil(state.watches[0]!);
    state.watches[0]!.end();
    await eventually('watching again', () => state.watches.length >= 2);
    state.watches.at(-1)!.event('ADDED', put('a'));
    await eventually('heard', () => changes.includes('- a'));
  });
}

test('watches that are refused one after the other cost a line a minute, and a quiet one that opens ends it', async (t) => {
  const { state, follow, put, changes, warnings, infos } = await apiServer(t);
  state.brokenWatch = (response) => {
    response.statusCode = 500;
    response.end(JSON.stringify({ kind: 'Status', message: 'not now' }));
  };
  const reflector = follow();
  await eventually('asked again', () => reflector.failures() >= 3);
  assert.equal(warnings.length, 1, warnings.join());
  assert.match(reflector.problem()!, /not now/);
  assert.match(warnings[0]!, /; trying again: GET \/api\/v1\/namespaces: 500 not now$/);
  state.brokenWatch = null;
  await eventually('watching, and nothing happens', () => reflector.problem() === null);
  assert.equal(infos.filter((line) => line === 'objects are followed again').length, 1);
  state.watches[0]!.event('ADDED', put('a'));
  await eventually('heard', () => changes.includes('- a'));
});

test('an API server that refuses is asked again, and the remedy is named', async (t) => {
  const { state, follow, put, warnings } = await apiServer(t);
  state.broken = (response) => {
    response.statusCode = 403;
    response.end(JSON.stringify({ kind: 'Status', message: 'namespaces is forbidden' }));
  };
  const reflector = follow();
  await eventually('asked again', () => state.lists >= 3);
  assert.match(warnings[0]!, /403 namespaces is forbidden \(look at the roles of the ServiceAccount/);
  assert.equal(warnings.length, 1, 'what goes on is not said with each attempt');
  assert.match(reflector.problem()!, /403 namespaces is forbidden/);
  assert.doesNotMatch(warnings.join(), /secret/);
  state.broken = (response) => void response.end('<html>');
  await eventually('not JSON', () => warnings.some((line) => line.includes('not JSON')));
  state.broken = null;
  put('a');
  await reflector.synced;
  assert.ok(reflector.failures() >= 2);
  assert.equal(reflector.problem(), null);
});

test('an API server that has too much to do is left alone for as long as it asks', async (t) => {
  const { state, follow, warnings } = await apiServer(t);
  state.broken = (response) => {
    state.broken = null;
    response.writeHead(429, { 'retry-after': '1' });
    response.end(JSON.stringify({ kind: 'Status', message: 'too many requests' }));
  };
  const started = performance.now();
  const reflector = follow();
  await reflector.synced;
  assert.ok(performance.now() - started >= 1000);
  assert.match(warnings[0]!, /429 too many requests/);
  assert.equal(reflector.failures(), 1);
});
