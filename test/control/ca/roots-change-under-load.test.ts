/**
 * Two replicas on a real API server, agents that renew their certificates from either of them and talk all the time by
 * mTLS: nothing fails while the root is replaced.
 */
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { connect, createServer, type Server, type TLSSocket } from 'node:tls';
import { openMeshCa } from '../../../src/control/ca/mesh-ca.ts';
import { ROTATE_ROOT } from '../../../src/control/ca/root-secret.ts';
import { startLease } from '../../../src/control/lease.ts';
import { type ServingCertificate, startControlServer } from '../../../src/control/server.ts';
import type { CertificateAuthorityClient, WorkloadCertificate } from '../../../src/identity/certificate.ts';
import { splitCertificates } from '../../../src/identity/pem.ts';
import { privateKeyPem } from '../../../src/identity/workload-key.ts';
import { createKubeApi } from '../../../src/kube/api.ts';
import { createLogger } from '../../../src/log/logger.ts';
import { createRegistry } from '../../../src/metrics/registry.ts';
import { type ApiServer, noApiServer, startApiServer } from '../../cni/support/api-server.ts';
import { eventually } from '../../cni/support/eventually.ts';
import { clientOf, literal, serverOf } from '../../identity/istio-ca-under-test.ts';
import { scratchFolder } from '../../identity/scratch.ts';
import { PATIENCE_MS } from '../../support/patience.ts';

const NAMESPACE = 'culvert-system';
const PATH = `/api/v1/namespaces/${NAMESPACE}`;
/** Certificates are valid for half of it. */
const OVERLAP_MS = 10_000;
const ACCOUNTS = ['web', 'api', 'db'];

async function replica(t: TestContext, server: ApiServer, agentUid: string, holder: string): Promise<string> {
  const { port, serviceAccountDir } = server;
  const api = createKubeApi({ host: '127.0.0.1', port, serviceAccountDir });
  const log = createLogger({ format: 'plain', level: 'off', write() {} });
  const lease = startLease({ api, namespace: NAMESPACE, name: 'culvert-control', holder, log });
  const mesh = await openMeshCa(
    {
      ...{ trustDomain: 'cluster.local', clusterId: 'Kubernetes', audience: 'istio-ca', tokensFile: null },
      ...{ trustedAccounts: [`${NAMESPACE}/culvert-agent`], rootDir: '/nonexistent', rootOverlapMs: OVERLAP_MS },
      ...{ defaultTtlMs: 86_400_000, maxTtlMs: 90 * 86_400_000, rootLifeMs: 3650 * 86_400_000, rootGraceShare: 0.2 },
      servingNames: ['127.0.0.1'],
    },
    {
      kubernetes: {
        ...{ api, reviewApi: api, lease, namespace: NAMESPACE, secret: 'istio-ca-secret' },
        bundleNamespaces: [NAMESPACE],
      },
      pods: {
        pod: (_, name) => (name === 'agent-1' ? { uid: agentUid, serviceAccount: 'culvert-agent', node: 'n' } : null),
        runsOn: (node, namespace, account) => node === 'n' && namespace === 'default' && ACCOUNTS.includes(account),
      },
      ...{ metrics: createRegistry(), log },
    },
  );
  const first = Promise.withResolvers<ServingCertificate>();
  let replace: (certificate: ServingCertificate) => void = first.resolve;
  mesh.serve(async (certificate) => replace(certificate));
  const certificate = await first.promise;
  const served = await startControlServer({
    ...{ host: '127.0.0.1', port: 0, log, services: [mesh.service], certificate },
  });
  replace = served.replaceCertificate;
  t.after(async () => {
    served.close();
    mesh.close();
    await lease.close();
    api.close();
  });
  return `https://127.0.0.1:${served.port}`;
}

interface Workload {
  certificate: WorkloadCertificate;
  readonly server: Server;
}

function tlsOptions({ privateKey, chainPem, rootsPem }: WorkloadCertificate) {
  return { key: privateKeyPem(privateKey), cert: chainPem, ca: rootsPem, minVersion: 'TLSv1.3' } as const;
}

async function startWorkload(t: TestContext, certificate: WorkloadCertificate): Promise<Workload> {
  const server = createServer({ ...tlsOptions(certificate), requestCert: true, rejectUnauthorized: true });
  server.on('secureConnection', (socket) => {
    socket.on('error', () => {});
    socket.end('hello');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  return { certificate, server };
}

/** Resolves when each has verified the other. */
async function talk(from: Workload, to: Workload): Promise<void> {
  const socket: TLSSocket = connect({
    ...tlsOptions(from.certificate),
    port: (to.server.address() as AddressInfo).port,
    host: '127.0.0.1',
    checkServerIdentity: (_, { subjectaltname }) =>
      subjectaltname === `URI:${to.certificate.identity}` ? undefined : new Error(`it is ${subjectaltname}`),
  });
  let answer = '';
  socket.setEncoding('utf8').on('data', (text: string) => {
    answer += text;
  });
  await once(socket, 'end');
  assert.equal(answer, 'hello');
}

test('a root is replaced under load without a failed request', { skip: noApiServer }, async (t) => {
  const server = await startApiServer(t);
  await server.create('/api/v1/namespaces', { metadata: { name: NAMESPACE } });
  await server.create(`${PATH}/serviceaccounts`, { metadata: { name: 'culvert-agent' } });
  const pod = await server.create(`${PATH}/pods`, {
    metadata: { name: 'agent-1' },
    spec: { serviceAccountName: 'culvert-agent', nodeName: 'n', containers: [{ name: 'app', image: 'none' }] },
  });
  const { uid } = pod.metadata;
  const requested = (await server.create(`${PATH}/serviceaccounts/culvert-agent/token`, {
    ...{ apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest' },
    spec: { audiences: ['istio-ca'], boundObjectRef: { kind: 'Pod', apiVersion: 'v1', name: 'agent-1', uid } },
  })) as unknown as { status: { token: string } };
  const token = literal(requested.status.token);

  const replicas = await Promise.all(['a', 'b'].map((holder) => replica(t, server, uid, holder)));
  const rootsFile = join(scratchFolder(t), 'root-cert.pem');
  /** As the kubelet brings the ConfigMap to the agents. */
  async function mount(): Promise<string> {
    const { body } = await server.call('GET', `${PATH}/configmaps/istio-ca-root-cert`);
    const roots = (body.data as Record<string, string>)['root-cert.pem']!;
    writeFileSync(rootsFile, roots);
    return roots;
  }
  await eventually('the roots are published', mount);
  const clients: CertificateAuthorityClient[] = [];
  for (const address of replicas) {
    clients.push((await clientOf(t, serverOf({ address, rootsFile }, { token }))).client);
  }

  const failures: string[] = [];
  let talks = 0;
  let renewals = 0;
  let isOver = false;
  t.after(() => {
    isOver = true;
  });
  const renewed = () => clients[renewals++ % clients.length]!;
  const workloads = await Promise.all(
    ACCOUNTS.map(async (account) =>
      startWorkload(t, await renewed().sign(`spiffe://cluster.local/ns/default/sa/${account}`)),
    ),
  );
  const [original] = splitCertificates(await mount());
  const life = workloads[0]!.certificate.notAfter - workloads[0]!.certificate.notBefore;
  assert.equal(life, OVERLAP_MS / 2 + 120_000);

  async function keepRenewing(workload: Workload): Promise<void> {
    while (!isOver) {
      await delay(800);
      try {
        workload.certificate = await renewed().sign(workload.certificate.identity);
        workload.server.setSecureContext(tlsOptions(workload.certificate));
      } catch (error) {
        failures.push(`renewal: ${error}`);
      }
    }
  }
  async function keepTalking(): Promise<void> {
    while (!isOver) {
      const [from, to] = [0, 1].map(() => workloads[Math.floor(Math.random() * workloads.length)]!);
      const ends = [from!, to!].map(({ certificate }) => certificate.notAfter);
      try {
        await talk(from!, to!);
        talks++;
      } catch (error) {
        // A machine that stood still for seconds has let a certificate end; that is not what is tested here. By now they
        // may have others.
        if (ends.every((end) => end > Date.now())) failures.push(`talk: ${error}`);
      }
      await delay(5);
    }
  }
  const load = [...workloads.map(keepRenewing), ...[1, 2, 3].map(keepTalking)];
  await server.call('PATCH', `${PATH}/secrets/istio-ca-secret`, {
    metadata: { annotations: { [ROTATE_ROOT]: 'please' } },
  });
  const seen = new Set<number>();
  await eventually(
    'the old root is forgotten',
    async () => {
      const roots = splitCertificates(await mount());
      seen.add(roots.length);
      return !roots.includes(original!);
    },
    2 * PATIENCE_MS,
  );
  // Some of them after the last renewal.
  await delay(1500);
  await eventually('it is busy', () => talks > 500);
  isOver = true;
  await Promise.all(load);
  assert.deepEqual(failures, []);
  assert.ok(seen.has(2), 'both were published for a time');
  const [root] = splitCertificates(await mount());
  for (const { certificate } of workloads) {
    assert.ok(new X509Certificate(certificate.chainPem).verify(new X509Certificate(root!).publicKey));
  }
  t.diagnostic(`${talks} connections and ${renewals} certificates`);
});
