import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createKubeApi, isConflict, isNotFound, KubeError } from '../../src/kube/api.ts';
import { fields } from '../../src/kube/object.ts';
import { noApiServer, startApiServer } from '../cni/support/api-server.ts';

test('objects are made, replaced, patched, applied and deleted', { skip: noApiServer }, async (t) => {
  const server = await startApiServer(t);
  const api = createKubeApi({ host: '127.0.0.1', port: server.port, serviceAccountDir: server.serviceAccountDir });
  t.after(() => api.close());
  const maps = '/api/v1/namespaces/default/configmaps';
  const map = (data: Record<string, string>, metadata: object = {}) => ({
    ...{ apiVersion: 'v1', kind: 'ConfigMap', data },
    metadata: { name: 'roots', ...metadata },
  });
  const dataOf = (object: unknown) => fields(object).data;
  const versionOf = (object: unknown) => fields(fields(object).metadata).resourceVersion;

  await t.test('what is not there is not found', async () => {
    await assert.rejects(api.get(`${maps}/roots`), (error) => isNotFound(error) && !isConflict(error));
    await assert.rejects(api.get('/apis/nobody.example/v1/things'), isNotFound);
    await assert.rejects(api.replace(`${maps}/roots`, map({ a: '1' })), isNotFound);
  });

  const made = await api.create(maps, map({ a: '1' }));
  await t.test('what is there cannot be made again', async () => {
    assert.deepEqual(dataOf(made), { a: '1' });
    await assert.rejects(api.create(maps, map({ a: '2' })), isConflict);
  });

  await t.test('an object that somebody else has changed is not replaced', async () => {
    const version = versionOf(made);
    const replaced = await api.replace(`${maps}/roots`, map({ a: '2' }, { resourceVersion: version }));
    assert.deepEqual(dataOf(replaced), { a: '2' });
    await assert.rejects(api.replace(`${maps}/roots`, map({ a: '3' }, { resourceVersion: version })), isConflict);
    assert.deepEqual(dataOf(await api.mergePatch(`${maps}/roots`, { data: { b: '1' } })), { a: '2', b: '1' });
  });

  await t.test('an applied object has what each manager owns, and loses what its manager no longer names', async () => {
    assert.deepEqual(dataOf(await api.apply(`${maps}/roots`, map({ c: '1', d: '1' }), 'one')), {
      ...{ a: '2', b: '1', c: '1', d: '1' },
    });
    await api.apply(`${maps}/roots`, map({ d: '2' }), 'two');
    assert.deepEqual(dataOf(await api.apply(`${maps}/roots`, map({}), 'one')), { a: '2', b: '1', d: '2' });
  });

  await t.test('a subresource is applied by itself', async () => {
    const condition = { type: 'Known', status: 'True', reason: 'Test', message: '', lastTransitionTime: TIME };
    await server.create('/api/v1/namespaces/default/services', {
      ...{ apiVersion: 'v1', kind: 'Service', metadata: { name: 'web' }, spec: { ports: [{ port: 80 }] } },
    });
    const path = '/api/v1/namespaces/default/services/web/status';
    const status = {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'web' },
      status: { conditions: [condition] },
    };
    const applied = fields(fields(await api.apply(path, status, 'one')).status);
    assert.deepEqual(applied.conditions, [condition]);
  });

  await t.test('only the object that was meant is deleted', async () => {
    await assert.rejects(api.delete(`${maps}/roots`, { uid: 'another' }), isConflict);
    await api.delete(`${maps}/roots`);
    await assert.rejects(api.delete(`${maps}/roots`), isNotFound);
  });

  await t.test('an error has its status and what the API server says', async () => {
    await assert.rejects(
      api.create(maps, { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'NOT A NAME' } }),
      (error) => error instanceof KubeError && error.status === 422 && /metadata\.name/.test(error.message),
    );
  });
});

const TIME = '2026-01-01T00:00:00Z';
