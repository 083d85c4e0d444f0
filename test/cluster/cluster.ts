/** A real Kubernetes of two nodes on this machine, made by ../shared/kube. */
import { execFile, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { parse } from 'yaml';
import { isOurs, removeLeftovers, takeOver } from './leftovers.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const kube = join(root, '../shared/kube');
const DOWN = join(kube, 'down.sh');
const run = promisify(execFile);

/** Why a cluster cannot run here; false when it can. For `{ skip }`. */
export function noCluster(): string | false {
  if (process.getuid?.() !== 0) return 'a cluster takes root';
  if (!existsSync(join(kube, 'up.sh'))) return `there is no ${kube}, which makes the cluster`;
  const built = join(process.env.KUBE_CACHE ?? join(homedir(), '.cache/culvert-kube'), 'bin/kubelet');
  const hasGo = (process.env.PATH ?? '').split(':').some((folder) => existsSync(join(folder, 'go')));
  return existsSync(built) || hasGo ? false : 'there is no Go to build Kubernetes with';
}

export type Node = 'node1' | 'node2';
export const NODES: readonly Node[] = ['node1', 'node2'];

export interface Cluster {
  /** File with the administrator's access. */
  readonly kubeconfig: string;
  /** The folder of a node's files: cni-bin, cni-conf, run/… */
  folder(node: Node): string;
  kubectl(...args: string[]): Promise<string>;
  json(...args: string[]): Promise<KubeObject>;
  apply(object: unknown): Promise<void>;
  /** Runs a program in a pod; resolves with what it prints, rejects when it fails. */
  exec(namespace: string, pod: string, ...argv: string[]): Promise<string>;
  /** Runs a program of this machine on a node: in its network and with its mounts. */
  onNode(node: Node, ...argv: string[]): Promise<string>;
  loadImage(file: string): Promise<void>;
}

/** Parts of Kubernetes objects that the tests look at. */
export interface KubeObject {
  readonly metadata: {
    readonly name: string;
    readonly uid: string;
    readonly namespace: string;
    readonly annotations?: Readonly<Record<string, string>>;
    readonly deletionTimestamp?: string;
  };
  readonly spec: { readonly nodeName: string; readonly serviceAccountName: string };
  readonly status: { readonly podIP?: string; readonly phase: string };
  readonly items: readonly KubeObject[];
}

/** With CULVERT_KEEP_CLUSTER=1 it stays, and is taken again. */
const keeps = process.env.CULVERT_KEEP_CLUSTER === '1';

/** Starts the cluster; what an earlier run may have left is no part of it. */
export function startCluster(): Cluster {
  if (!keeps) removeLeftovers(DOWN);
  takeOver();
  const up = spawnSync(join(kube, 'up.sh'), {
    env: { ...process.env, NODES: '2' },
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  if (up.status !== 0) throw new Error(`${kube}/up.sh failed`);
  const exports = /KUBECONFIG=(\S+) .*KUBE_STATE=(\S+) PATH=([^:]+):/.exec(up.stdout);
  if (exports === null) throw new Error(`${kube}/up.sh printed something else: ${up.stdout}`);
  const [, kubeconfig, state, programs] = exports as unknown as [string, string, string, string];
  const env = { ...process.env, KUBECONFIG: kubeconfig, PATH: `${programs}:${process.env.PATH}` };
  const options = { env, maxBuffer: 64 * 1024 * 1024, timeout: 300_000 };
  const folder = (node: Node) => join(state, node);
  const mountsOf = (node: Node) => readFileSync(join(state, `${node}-mounts.pid`), 'utf8').trim();
  for (const node of NODES) separateLogs(mountsOf(node), folder(node));
  let applied = 0;

  async function kubectl(...args: string[]): Promise<string> {
    return (await run('kubectl', args, options)).stdout;
  }

  return {
    kubeconfig,
    folder,
    kubectl,
    json: async (...args) => JSON.parse(await kubectl(...args, '-o', 'json')) as KubeObject,
    async apply(object) {
      const file = join(state, `apply-${++applied}.json`);
      writeFileSync(file, JSON.stringify(object));
      await kubectl('apply', '-f', file);
    },
    exec: (namespace, pod, ...argv) => kubectl('exec', '-n', namespace, pod, '--', ...argv),
    async onNode(node, ...argv) {
      return (await run('nsenter', ['-m', '-n', '-t', mountsOf(node), '--', ...argv], options)).stdout;
    },
    async loadImage(file) {
      for (const node of NODES) {
        await run(
          'ctr',
          ['-a', join(folder(node), 'containerd.sock'), '-n', 'k8s.io', 'image', 'import', file],
          options,
        );
      }
    },
  };
}

/**
 * Each kubelet removes the logs of pods that it does not know, every minute: those of the other node, in a folder that
 * they share.
 */
function separateLogs(mounts: string, folder: string): void {
  const own = join(folder, 'pod-logs');
  if (existsSync(own)) return;
  for (const path of [own, POD_LOGS]) mkdirSync(path, { recursive: true });
  const mounted = spawnSync('nsenter', ['-m', '-t', mounts, '--', 'mount', '--bind', own, POD_LOGS], {
    encoding: 'utf8',
  });
  if (mounted.status !== 0) throw new Error(`${own} cannot be mounted at ${POD_LOGS}: ${mounted.stderr}`);
}

const POD_LOGS = '/var/log/pods';

/** Also after a start that has failed half-way. */
export function stopCluster(): void {
  if (!keeps && isOurs()) spawnSync(DOWN, { stdio: 'inherit' });
}

interface Container {
  env: { name: string; value?: string }[];
  volumeMounts: { name: string; mountPath: string }[];
}

interface Volume {
  name: string;
  hostPath?: { path: string; type: string };
}

interface DaemonSet {
  kind: string;
  metadata: { name: string };
  spec: {
    template: {
      spec: { containers: [Container]; volumes: Volume[]; hostAliases?: { ip: string; hostnames: string[] }[] };
    };
  };
}

/**
 * deploy/daemonset.yaml with two things changed: mesh state and certificates come from folders instead of from istiod,
 * and the state of the node agent is kept where each of these nodes has a folder of its own.
 */
export function manifestForLocalState(mesh: string, ca: string): unknown {
  const { manifest, agent } = manifestForNodes();
  const { containers, volumes } = agent;
  const [container] = containers;
  const set = (name: string, value: string) => {
    container.env = [...container.env.filter((entry) => entry.name !== name), { name, value }];
  };
  set('XDS_ADDRESS', '');
  set('CA_ADDRESS', '');
  set('LOCAL_XDS_PATH', '/mesh/mesh.yaml');
  set('CULVERT_CA_DIR', '/ca');
  container.volumeMounts.push({ name: 'mesh', mountPath: '/mesh' }, { name: 'ca', mountPath: '/ca' });
  // Neither istiod's root certificate nor a token for it is there.
  const needless = ['istio-token', 'istiod-ca-cert'];
  container.volumeMounts = container.volumeMounts.filter(({ name }) => !needless.includes(name));
  agent.volumes = [
    ...volumes.filter(({ name }) => !needless.includes(name)),
    { name: 'mesh', hostPath: { path: mesh, type: 'DirectoryOrCreate' } },
    { name: 'ca', hostPath: { path: ca, type: 'DirectoryOrCreate' } },
  ];
  return manifest;
}

/** deploy/daemonset.yaml for istiod as a process at `address`: its Service is a line in the agents' hosts file. */
export function manifestForIstiod(address: string): unknown {
  const { manifest, agent } = manifestForNodes();
  agent.hostAliases = [{ ip: address, hostnames: ['istiod.istio-system.svc'] }];
  return manifest;
}

function manifestForNodes() {
  const manifest = parse(readFileSync(join(root, 'deploy/daemonset.yaml'), 'utf8')) as { items: DaemonSet[] };
  const podOf = (name: string) =>
    manifest.items.find(({ kind, metadata }) => kind === 'DaemonSet' && metadata.name === name)!.spec.template.spec;
  const nodeAgent = podOf('culvert-cni');
  nodeAgent.volumes.find(({ name }) => name === 'state')!.hostPath!.path = STATE;
  nodeAgent.containers[0].volumeMounts.find(({ name }) => name === 'state')!.mountPath = STATE;
  nodeAgent.containers[0].env.push({ name: 'CULVERT_CNI_STATE_DIR', value: STATE });
  return { manifest, agent: podOf('culvert-agent') };
}

/** Of /var/run/culvert each node has its own. */
const STATE = '/var/run/culvert/state';

/** Replaces a file in one step. */
export function replace(file: string, content: string): void {
  mkdirSync(join(file, '..'), { recursive: true });
  writeFileSync(`${file}.new`, content);
  renameSync(`${file}.new`, file);
}
