/** A node for the node agent: a pod network, pods whose processes are found under a /proc of their own, and an API server. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { runCommand } from '../../../src/netns/run.ts';
import { type Pod, type PodNetwork, podNetwork } from '../../support/pods.ts';
import { type ApiServer, startApiServer } from './api-server.ts';
import { eventually } from './eventually.ts';

const root = fileURLToPath(new URL('../../..', import.meta.url));

export interface TestNode {
  readonly api: ApiServer;
  readonly network: PodNetwork;
  readonly folders: { proc: string; bin: string; conf: string; run: string; state: string };
  readonly zdsPath: string;
  readonly pluginSocket: string;
  /** Makes a namespace of Kubernetes. */
  addNamespace(name: string, labels?: Record<string, string>): Promise<void>;
  label(namespace: string, labels: Record<string, string | null>): Promise<void>;
  /** Makes a Pod object on this node; it has no addresses and no processes yet. */
  addPodObject(namespace: string, name: string, more?: Record<string, unknown>): Promise<string>;
  /** Makes a network namespace with a process, as of a running pod, and tells the API its addresses. */
  runPod(namespace: string, name: string, uid: string): Promise<Pod>;
  setIps(namespace: string, name: string, pod: Pod): Promise<void>;
  annotation(namespace: string, name: string): Promise<string | null>;
  startNodeAgent(env?: Record<string, string>): Promise<NodeAgentProcess>;
}

export interface NodeAgentProcess {
  readonly pid: number;
  log(): string;
  /** HTTP status of /readyz; 0 when nobody listens. */
  readyz(): Promise<number>;
  metrics(): Promise<string>;
  /** Ends it in order and resolves with its exit code, once all that it said is in `log`. */
  stop(signal?: NodeJS.Signals): Promise<number | null>;
}

export const NODE = 'node1';

/** @param t ends what belongs to the node; a node agent can only be started in a test */
export async function testNode(t: Pick<TestContext, 'after'> & Partial<TestContext>): Promise<TestNode> {
  const [network, api] = await Promise.all([podNetwork(t), startApiServer(t)]);
  const folders = Object.fromEntries(
    ['proc', 'bin', 'conf', 'run', 'state'].map((name) => {
      const folder = join(network.folder, name);
      mkdirSync(folder);
      return [name, folder];
    }),
  ) as TestNode['folders'];
  mkdirSync(join(folders.proc, '1/ns'), { recursive: true });
  symlinkSync(nodeNetnsPath(network), join(folders.proc, '1/ns/net'));
  writeFileSync(join(folders.conf, '10-net.conflist'), CONFLIST);
  // Other plugins keep folders of their own there.
  mkdirSync(join(folders.conf, 'whereabouts.d'));
  await api.create('/api/v1/nodes', { metadata: { name: NODE } });

  const node: TestNode = {
    api,
    network,
    folders,
    zdsPath: join(network.folder, 'zds.sock'),
    pluginSocket: join(folders.run, 'cni.sock'),
    async addNamespace(name, labels = {}) {
      await api.create('/api/v1/namespaces', { metadata: { name, labels } });
    },
    async label(namespace, labels) {
      await api.call('PATCH', `/api/v1/namespaces/${namespace}`, { metadata: { labels } });
    },
    async addPodObject(namespace, name, more = {}) {
      const { metadata = {}, spec = {} } = more as { metadata?: object; spec?: object };
      const object = await api.create(`/api/v1/namespaces/${namespace}/pods`, {
        metadata: { name, ...metadata },
        spec: { nodeName: NODE, containers: [{ name: 'app', image: 'none' }], ...spec },
      });
      return object.metadata.uid;
    },
    async runPod(namespace, name, uid) {
      const pod = await network.addPod(name);
      // A process of its own file, so that the pod's namespace has one to be found by.
      const sleeper = pod.start(['sleep', '1000']);
      await showProcess(folders.proc, sleeper, uid, pod);
      await node.setIps(namespace, name, pod);
      return pod;
    },
    async setIps(namespace, name, pod) {
      const ips = [pod.ipv4, ...(pod.ipv6 === null ? [] : [pod.ipv6])];
      await api.call('PATCH', `/api/v1/namespaces/${namespace}/pods/${name}/status`, {
        status: { phase: 'Running', podIP: ips[0], podIPs: ips.map((ip) => ({ ip })) },
      });
    },
    async annotation(namespace, name) {
      const { body } = await api.call('GET', `/api/v1/namespaces/${namespace}/pods/${name}`);
      const { annotations = {} } = (body.metadata ?? {}) as { annotations?: Record<string, string> };
      return annotations['ambient.istio.io/redirection'] ?? null;
    },
    async startNodeAgent(env = {}) {
      return await startNodeAgent(t as TestContext, node, env);
    },
  };
  return node;
}

/** As a runtime's chain would be before the plugin is in it; formatted as nobody else would. */
export const CONFLIST = `{ "cniVersion":"1.0.0",
   "name": "kube", "plugins":[ {"type":"bridge","ipam":{"type":"host-local"}},
     {"type":"portmap","capabilities":{"portMappings":true}} ] }
`;

function nodeNetnsPath(network: PodNetwork): string {
  return `/proc/${process.pid}/fd/${network.node.fd}`;
}

async function showProcess(proc: string, child: ChildProcess, uid: string, pod: Pod): Promise<void> {
  const real = `/proc/${child.pid}`;
  const wanted = statSync(pod.netnsPath).ino;
  await eventually('the process is in its namespace', () => statSync(`${real}/ns/net`).ino === wanted);
  const folder = join(proc, String(child.pid));
  mkdirSync(join(folder, 'ns'), { recursive: true });
  symlinkSync(`${real}/ns/net`, join(folder, 'ns/net'));
  symlinkSync(`${real}/net`, join(folder, 'net'));
  symlinkSync(`${real}/stat`, join(folder, 'stat'));
  const slice = `kubepods-besteffort-pod${uid.replaceAll('-', '_')}.slice`;
  writeFileSync(
    join(folder, 'cgroup'),
    `0::/kubepods.slice/kubepods-besteffort.slice/${slice}/cri-containerd-${'c0ffee'.repeat(4)}.scope\n`,
  );
}

/** The settings with which a node agent serves a node of the tests. */
export function nodeAgentSettings({ api, folders, zdsPath }: TestNode): Record<string, string> {
  return {
    NODE_NAME: NODE,
    POD_NAMESPACE: 'culvert-system',
    KUBERNETES_SERVICE_HOST: '127.0.0.1',
    KUBERNETES_SERVICE_PORT: String(api.port),
    CULVERT_SERVICE_ACCOUNT_DIR: api.serviceAccountDir,
    CULVERT_HOST_PROC: folders.proc,
    ALLOW_SWITCH_TO_HOST_NS: 'true',
    CULVERT_CNI_BIN_DIR: folders.bin,
    MOUNTED_CNI_NET_DIR: folders.conf,
    CNI_AGENT_RUN_DIR: folders.run,
    CULVERT_CNI_STATE_DIR: folders.state,
    ZTUNNEL_UDS_ADDRESS: zdsPath,
    MONITORING_PORT: '0',
    CULVERT_CNI_HEALTH_PORT: '0',
  };
}

async function startNodeAgent(t: TestContext, node: TestNode, env: Record<string, string>): Promise<NodeAgentProcess> {
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', process.execPath, 'src/cli.ts', 'cni'], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      ...{ PATH: process.env.PATH, NODE_OPTIONS: process.env.NODE_OPTIONS },
      ...nodeAgentSettings(node),
      ...{ RUST_LOG: 'debug', ...env },
    },
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  }
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  t.after(async () => {
    child.kill('SIGKILL');
    await ended;
    if (!t.passed) t.diagnostic(output);
  });
  const get = async (server: 'health' | 'metrics', path: string) => {
    const port = new RegExp(`listening.*server="${server}".*port=(\\d+)`).exec(output)?.[1];
    if (port === undefined) return null;
    return await fetch(`http://127.0.0.1:${port}${path}`);
  };
  return {
    pid: child.pid!,
    log: () => output,
    readyz: async () => (await get('health', '/readyz').catch(() => null))?.status ?? 0,
    metrics: async () => (await (await get('metrics', '/metrics'))?.text()) ?? '',
    async stop(signal = 'SIGTERM') {
      child.kill(signal);
      return await ended;
    },
  };
}

/** Whether a pod has capture rules. */
export async function isCaptured(pod: Pod): Promise<boolean> {
  const { stdout } = await runCommand(['nft', 'list', 'tables'], { netns: pod.netns.fd });
  return stdout.includes('istio-ambient-nat');
}

/** The text of the node's table for probes. */
export async function hostRules(node: TestNode): Promise<string> {
  const { stdout } = await runCommand(['nft', 'list', 'table', 'inet', 'istio-ambient-nat'], {
    netns: node.network.node.fd,
  });
  return stdout;
}

export function fileText(path: string): string {
  return readFileSync(path, 'utf8');
}
