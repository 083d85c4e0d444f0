import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { ControlStatus } from '../../src/control/status/report.ts';
import { type ApiServer, noApiServer, startApiServer } from '../cni/support/api-server.ts';
import { eventually } from '../cni/support/eventually.ts';
import { runCulvert } from '../support/culvert-process.ts';
import { freePorts } from '../support/free-ports.ts';
import { installShippedKinds } from './support/shipped-kinds.ts';

async function startReplica(t: TestContext, server: ApiServer, name: string) {
  const [port, admin, readiness, metrics] = (await freePorts(4)) as [number, number, number, number];
  const running = runCulvert(['control'], {
    KUBERNETES_SERVICE_HOST: '127.0.0.1',
    KUBERNETES_SERVICE_PORT: String(server.port),
    CULVERT_SERVICE_ACCOUNT_DIR: server.serviceAccountDir,
    POD_NAME: name,
    ROOT_CA_DIR: '/nowhere',
    CULVERT_SECURE_GRPC_PORT: String(port),
    CULVERT_ADMIN_PORT: String(admin),
    CULVERT_READINESS_PORT: String(readiness),
    MONITORING_PORT: String(metrics),
    TERMINATION_GRACE_PERIOD_SECONDS: '2',
  });
  t.after(() => running.child.kill('SIGKILL'));
  const ask = (at: number, path: string) =>
    fetch(`http://127.0.0.1:${at}${path}`, { signal: AbortSignal.timeout(20_000) });
  return {
    ...running,
    ready: async () => (await ask(readiness, '/healthz/ready')).text(),
    status: async () => (await (await ask(admin, '/status')).json()) as ControlStatus,
  };
}

test('replicas serve while their API server is away, and one of them writes', { skip: noApiServer }, async (t) => {
  const server = await startApiServer(t);
  await installShippedKinds(server);
  await server.create('/api/v1/namespaces', { metadata: { name: 'culvert-system' } });
  const services = '/api/v1/namespaces/default/services';
  const service = (name: string) => ({ metadata: { name }, spec: { ports: [{ port: 80 }] } });
  await server.create(services, service('web'));

  await server.freeze();
  const first = await startReplica(t, server, 'first');

  await t.test('one that starts without it is not ready, and says what it waits for', async () => {
    await eventually('answers', async () =>
      /not ready, pending: mesh state, objects, serving/.test(await first.ready()),
    );
  });

  await t.test('it is ready once all objects have been read and there is a root', async () => {
    server.thaw();
    await eventually('ready', async () => (await first.ready()) === 'ready\n');
    // The API server makes a Service for itself once it is ready.
    await eventually('has read both', async () => (await first.status()).resources.addresses === 2);
    const { roots, isLeader } = await first.status();
    assert.equal(roots.length, 1);
    assert.ok(isLeader);
  });

  const second = await startReplica(t, server, 'second');

  await t.test('another replica has the same root and objects, and does not write', async () => {
    await eventually('ready', async () => (await second.ready()) === 'ready\n');
    const [one, other] = [await first.status(), await second.status()];
    assert.deepEqual(other.roots, one.roots);
    assert.deepEqual(other.resources, one.resources);
    assert.equal(other.isLeader, false);
  });

  await t.test('a restart of the API server takes nothing away and is caught up with', async () => {
    await server.restart();
    await server.create(services, service('late'));
    for (const replica of [first, second]) {
      assert.equal(await replica.ready(), 'ready\n');
      await eventually('caught up', async () => (await replica.status()).resources.addresses === 3);
    }
  });

  await t.test('when the one that writes ends, the other takes over', async () => {
    first.child.kill('SIGTERM');
    assert.equal(await first.exited, 0, first.output());
    await eventually('takes over', async () => (await second.status()).isLeader);
    assert.equal(await second.ready(), 'ready\n');
  });
});
