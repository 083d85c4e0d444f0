import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { Kind, ObjectChange, RejectedObject } from '../../../src/control/kinds.ts';
import { watchKubernetes } from '../../../src/control/sources/kubernetes.ts';
import { createKubeApi } from '../../../src/kube/api.ts';
import { fields, metadataOf, text } from '../../../src/kube/object.ts';
import { type ApiServer, noApiServer, startApiServer } from '../../cni/support/api-server.ts';
import { eventually } from '../../cni/support/eventually.ts';

interface Thing {
  readonly name: string;
  readonly size: string;
}

/** A ConfigMap with a size; "hidden" is of no interest, "huge" cannot be read. */
const CONFIG_MAP: Kind<Thing> = {
  ...{ kind: 'ConfigMap', group: '', version: 'v1', plural: 'configmaps', namespaced: true, optional: false },
  fieldSelector: 'metadata.name!=elsewhere',
  read(object) {
    const size = text(fields(fields(object).data).size);
    if (size === 'hidden') return null;
    if (size === 'huge') throw new Error('data.size: huge is too large');
    return { name: text(metadataOf(object).name), size };
  },
};

const WIDGET: Kind<Thing> = {
  ...{ kind: 'Widget', group: 'test.example', version: 'v1', plural: 'widgets', namespaced: false, optional: true },
  read: (object) => ({ name: text(metadataOf(object).name), size: text(fields(fields(object).spec).size) }),
};

function follow(t: TestContext, server: ApiServer) {
  const api = createKubeApi({ host: '127.0.0.1', port: server.port, serviceAccountDir: server.serviceAccountDir });
  const told: string[] = [];
  const rejected: RejectedObject[] = [];
  const describe = ({ kind, key, before, after }: ObjectChange) =>
    `${kind.kind} ${key}: ${(before as Thing | null)?.size ?? '-'} ${(after as Thing | null)?.size ?? '-'}`;
  const source = watchKubernetes({
    ...{ api, kinds: [CONFIG_MAP, WIDGET], missingMs: 200 },
    listener: {
      changed: (changes) => void told.push(...changes.map(describe)),
      rejected: (object) => void rejected.push(object),
    },
    log: { info() {}, warn() {} },
  });
  t.after(() => {
    source.close();
    api.close();
  });
  return { source, told, rejected };
}

const MAPS = '/api/v1/namespaces/default/configmaps';
const map = (name: string, size: string) => ({
  ...{ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name }, data: { size } },
});

test('objects of the API server are followed', { skip: noApiServer }, async (t) => {
  const server = await startApiServer(t);
  for (const [name, size] of [
    ['a', '1'],
    ['b', '2'],
    ['bad', 'huge'],
    ['elsewhere', '9'],
  ] as const) {
    await server.create(MAPS, map(name, size));
  }
  const { source, told, rejected } = follow(t, server);
  const patch = (name: string, size: string) => server.call('PATCH', `${MAPS}/${name}`, { data: { size } });
  const remove = (name: string) => server.call('DELETE', `${MAPS}/${name}`);
  const hears = (line: string) => eventually(line, () => told.includes(line));
  // The API server writes ConfigMaps of its own, when it likes.
  const ours = (lines: readonly string[]) => lines.filter((line) => line.includes('default/'));

  await t.test(
    'all that there is has been told when it is in step, but for what the server was asked to leave out',
    async () => {
      await source.synced;
      assert.deepEqual(ours(told).sort(), ['ConfigMap default/a: - 1', 'ConfigMap default/b: - 2']);
      assert.deepEqual(
        rejected.map(({ key, reason }) => [key, reason]),
        [['default/bad', 'data.size: huge is too large']],
      );
    },
  );

  await t.test('a version that cannot be read leaves the one before in force', async () => {
    await patch('a', 'huge');
    await eventually('rejected', () => rejected.some(({ key }) => key === 'default/a'));
    await patch('a', '3');
    await hears('ConfigMap default/a: 1 3');
    await patch('a', 'huge');
    await eventually('rejected again', () => rejected.filter(({ key }) => key === 'default/a').length === 2);
    await remove('a');
    await hears('ConfigMap default/a: 3 -');
  });

  await t.test('the end of an object that never could be read is told', async () => {
    await remove('bad');
    await hears('ConfigMap default/bad: - -');
  });

  await t.test('an object that is of no interest any more is gone', async () => {
    await patch('b', 'hidden');
    await hears('ConfigMap default/b: 2 -');
    await patch('b', '4');
    await hears('ConfigMap default/b: - 4');
  });

  await t.test('a kind is followed from when it is installed until it is removed', async () => {
    const definitions = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions';
    await server.create(definitions, WIDGETS);
    await eventually('installed', async () => {
      const made = { apiVersion: 'test.example/v1', kind: 'Widget', metadata: { name: 'w' }, spec: { size: '5' } };
      return (await server.call('POST', '/apis/test.example/v1/widgets', made)).status === 201;
    });
    await hears('Widget w: - 5');
    await server.call('DELETE', `${definitions}/widgets.test.example`);
    await hears('Widget w: 5 -');
  });

  await t.test('a restart of the API server loses nothing and repeats nothing', async () => {
    const before = told.length;
    await server.restart();
    await patch('b', '6');
    await hears('ConfigMap default/b: 4 6');
    assert.deepEqual(ours(told.slice(before)), ['ConfigMap default/b: 4 6']);
  });

  await t.test('an API server that hangs costs nothing but time', async () => {
    const before = told.length;
    await server.freeze();
    const patched = patch('b', '7');
    setTimeout(() => server.thaw(), 2000);
    await patched;
    await hears('ConfigMap default/b: 6 7');
    assert.deepEqual(ours(told.slice(before)), ['ConfigMap default/b: 6 7']);
  });
});

const WIDGETS = {
  ...{
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: 'widgets.test.example' },
  },
  spec: {
    ...{ group: 'test.example', scope: 'Cluster', names: { plural: 'widgets', singular: 'widget', kind: 'Widget' } },
    versions: [
      {
        ...{ name: 'v1', served: true, storage: true },
        schema: {
          openAPIV3Schema: {
            type: 'object',
            properties: { spec: { type: 'object', properties: { size: { type: 'string' } } } },
          },
        },
      },
    ],
  },
};
