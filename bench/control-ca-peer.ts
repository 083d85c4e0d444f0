/** The control plane's CA in a process of its own, for `control-ca.ts`; reviews of tokens take 5 ms as at an API server. */
import { setTimeout as delay } from 'node:timers/promises';
import { openMeshCa } from '../src/control/ca/mesh-ca.ts';
import { alwaysHeld } from '../src/control/lease.ts';
import { type ServingCertificate, startControlServer } from '../src/control/server.ts';
import type { KubeApi } from '../src/kube/api.ts';
import { createLogger } from '../src/log/logger.ts';
import { createRegistry } from '../src/metrics/registry.ts';

const REVIEW_MS = 5;
const [rootDir = ''] = process.argv.slice(2);
let reviews = 0;
const reviewApi = {
  async create() {
    reviews++;
    await delay(REVIEW_MS);
    return {
      status: {
        ...{ authenticated: true, audiences: ['istio-ca'] },
        user: {
          ...{ username: 'system:serviceaccount:culvert-system:culvert-agent', groups: ['system:serviceaccounts'] },
          extra: {
            'authentication.kubernetes.io/pod-name': ['agent'],
            'authentication.kubernetes.io/pod-uid': ['uid'],
          },
        },
      },
    };
  },
};
/** Nothing was published yet, and it takes whatever is. */
const api = {
  get: async () => ({ metadata: { resourceVersion: '1' }, items: [] }),
  lines: () => new Promise<void>(() => {}),
  create: async () => ({}),
  mergePatch: async () => ({}),
};
const log = createLogger({ format: 'plain', level: 'warn', write: (line) => void process.stderr.write(line) });
const mesh = await openMeshCa(
  {
    ...{ trustDomain: 'cluster.local', clusterId: 'Kubernetes', audience: 'istio-ca', tokensFile: null, rootDir },
    trustedAccounts: ['culvert-system/culvert-agent'],
    ...{ defaultTtlMs: 86_400_000, maxTtlMs: 90 * 86_400_000, rootLifeMs: 3650 * 86_400_000, rootGraceShare: 0.2 },
    servingNames: ['localhost'],
  },
  {
    kubernetes: {
      ...{ api: api as unknown as KubeApi, reviewApi, lease: alwaysHeld },
      ...{ namespace: 'culvert-system', secret: '', bundleNamespaces: [] },
    },
    pods: { pod: () => ({ uid: 'uid', serviceAccount: 'culvert-agent', node: 'n' }), runsOn: () => true },
    ...{ metrics: createRegistry(), log },
  },
);
const first = Promise.withResolvers<ServingCertificate>();
mesh.serve(async (certificate) => first.resolve(certificate));
const certificate = await first.promise;
const { port } = await startControlServer({
  ...{ host: '127.0.0.1', port: 0, log, services: [mesh.service], certificate },
});
process.on('message', () => {
  const { user, system } = process.cpuUsage();
  process.send!({ kind: 'usage', cpuSeconds: (user + system) / 1e6, reviews });
});
process.send!({ kind: 'listening', port, rootsPem: certificate.clientRootsPem });
