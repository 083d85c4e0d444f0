/** A mesh's CA behind the real server, without Kubernetes: tokens in a file, pods as the test says. */
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { Client, credentials, Metadata } from '@grpc/grpc-js';
import { type MeshCa, type MeshCaConfig, openMeshCa } from '../../../src/control/ca/mesh-ca.ts';
import type { PodDirectory } from '../../../src/control/ca/node-authorizer.ts';
import { type ControlServer, type ServingCertificate, startControlServer } from '../../../src/control/server.ts';
import { decodeCertificateResponse } from '../../../src/identity/ca-messages.ts';
import { createLogger } from '../../../src/log/logger.ts';
import { createRegistry, type Registry } from '../../../src/metrics/registry.ts';
import { scratchFolder } from '../../identity/scratch.ts';
import { encodeRequest, type RequestFields } from './request.ts';

export const AGENT_TOKEN = 'agent-token';
export const STRANGER_TOKEN = 'stranger-token';
export const OTHER_NODE_TOKEN = 'other-node-token';
export const WEB = 'spiffe://cluster.local/ns/default/sa/web';

/** An agent on node1 by its pod, one on node2 by what the operator says, and an account that is no agent's. */
export const TOKENS = `tokens:
  - {sha256: ${digest(AGENT_TOKEN)}, namespace: culvert-system, serviceAccount: culvert-agent, pod: agent-1, uid: uid-1}
  - {sha256: ${digest(OTHER_NODE_TOKEN)}, namespace: culvert-system, serviceAccount: culvert-agent, node: node2}
  - {sha256: ${digest(STRANGER_TOKEN)}, namespace: default, serviceAccount: stranger, node: node1}
`;

export function digest(token: string): string {
  return createHash('sha256').update(token).digest('hex');
}

/** Pods that the control plane knows: the agent of node1, and one pod of `default/web` beside it. */
export function testPods(): PodDirectory & { readonly running: Set<string>; agentUid: string } {
  const pods = {
    /** `node/namespace/service account` */
    running: new Set(['node1/default/web', 'node1/culvert-system/culvert-agent']),
    agentUid: 'uid-1',
    pod: (namespace: string, name: string) =>
      `${namespace}/${name}` === 'culvert-system/agent-1'
        ? { uid: pods.agentUid, serviceAccount: 'culvert-agent', node: 'node1' }
        : null,
    runsOn: (node: string, namespace: string, account: string) => pods.running.has(`${node}/${namespace}/${account}`),
  };
  return pods;
}

export interface CaUnderTest {
  readonly mesh: MeshCa;
  readonly server: ControlServer;
  /** `https://127.0.0.1:<port>` */
  readonly address: string;
  readonly folder: string;
  readonly rootsFile: string;
  readonly tokensFile: string;
  readonly pods: ReturnType<typeof testPods>;
  readonly metrics: Registry;
  readonly lines: readonly string[];
  rootsPem(): string;
  /** Sends a request as an agent would; rejects with grpc-js's ServiceError. */
  request(fields: Partial<RequestFields>, token?: string | null): Promise<string[]>;
  /** The value of a counter. */
  count(name: string, ...labels: string[]): number;
}

export async function caUnderTest(
  t: TestContext,
  changes: Partial<MeshCaConfig> = {},
  now: () => number = Date.now,
): Promise<CaUnderTest> {
  const folder = scratchFolder(t);
  const tokensFile = join(folder, 'tokens.yaml');
  writeFileSync(tokensFile, TOKENS);
  const lines: string[] = [];
  const log = createLogger({ format: 'plain', level: 'debug', write: (line) => void lines.push(line) });
  const pods = testPods();
  const metrics = createRegistry();
  const mesh = await openMeshCa(
    {
      ...{ trustDomain: 'cluster.local', clusterId: 'Kubernetes', audience: 'istio-ca' },
      trustedAccounts: ['culvert-system/culvert-agent'],
      rootDir: join(folder, 'ca'),
      ...{
        defaultTtlMs: 86_400_000,
        maxTtlMs: 90 * 86_400_000,
        rootLifeMs: 3650 * 86_400_000,
        rootGraceShare: 0.2,
        rootOverlapMs: null,
      },
      servingNames: ['culvert-control.culvert-system.svc', '127.0.0.1'],
      tokensFile,
      ...changes,
    },
    { kubernetes: null, pods, metrics, log, now },
  );
  t.after(() => mesh.close());
  let server: ControlServer | null = null;
  let roots = '';
  const first = Promise.withResolvers<ServingCertificate>();
  mesh.serve(async (certificate) => {
    roots = certificate.clientRootsPem;
    writeFileSync(join(folder, 'roots.pem'), roots);
    first.resolve(certificate);
    server?.replaceCertificate(certificate);
  });
  server = await startControlServer({
    ...{ host: '127.0.0.1', port: 0, log, services: [mesh.service], certificate: await first.promise },
  });
  const { port } = server;
  t.after(() => server.close());
  const client = new Client(`127.0.0.1:${port}`, credentials.createSsl(Buffer.from(roots)), {
    'grpc.ssl_target_name_override': 'culvert-control.culvert-system.svc',
  });
  t.after(() => client.close());

  return {
    ...{ mesh, server, folder, tokensFile, pods, metrics, lines },
    address: `https://127.0.0.1:${port}`,
    rootsFile: join(folder, 'roots.pem'),
    rootsPem: () => roots,
    request: (fields, token = AGENT_TOKEN) => send(client, fields, token),
    count(name, ...labels) {
      for (const entry of metrics.families()) {
        if (entry.family.name !== name || entry.kind !== 'samples') continue;
        return [...entry.samples()].find((sample) => sample.labels.join() === labels.join())?.value ?? 0;
      }
      return 0;
    },
  };
}

function send(client: Client, fields: Partial<RequestFields>, token: string | null): Promise<string[]> {
  const metadata = new Metadata();
  if (token !== null) metadata.set('authorization', `Bearer ${token}`);
  const raw = (bytes: Buffer) => bytes;
  const path = '/istio.v1.auth.IstioCertificateService/CreateCertificate';
  return new Promise((resolve, reject) => {
    const done = (error: unknown, answer?: Buffer) => {
      if (error === null) resolve(decodeCertificateResponse(answer!));
      else reject(error);
    };
    client.makeUnaryRequest(path, raw, raw, encodeRequest(fields), metadata, { deadline: Date.now() + 20_000 }, done);
  });
}
