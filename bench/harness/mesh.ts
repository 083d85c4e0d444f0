import { cpSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { stringify } from 'yaml';
import { chooseRulesBackend } from '../../src/cni/rules/backend.ts';
import { defaultPodRules } from '../../src/cni/rules/pod-rules.ts';
import { createPodNetwork, type Pod } from '../../src/demo/pod-network.ts';
import { startZdsServer } from '../../src/zds/server.ts';
import { type Running, startProcess } from './processes.ts';

/** A node with one agent, enrolled pods behind real capture rules, and plain pods on the same bridge. */
export interface Mesh {
  readonly agent: Running;
  /** In the order of their names. */
  readonly enrolled: readonly Pod[];
  readonly plain: readonly Pod[];
  stop(): Promise<void>;
}

export interface MeshOptions {
  /** Names of pods, each its own workload and service account. */
  readonly enrolled: readonly string[];
  readonly plain: readonly string[];
  /** Data-plane threads of the agent. */
  readonly workers: number;
  /** Starts a control plane in the namespace of the node; returns what the agent is to be set to. */
  readonly controlPlane?: (netns: number) => Promise<Readonly<Record<string, string>>>;
}

const repository = fileURLToPath(new URL('../..', import.meta.url));

/** The layout of an image, so that what is measured starts as it does there. Returns the command. */
export function makeImage(folder: string): string {
  const image = join(folder, 'image');
  cpSync(join(repository, 'bin'), join(image, 'bin'), { recursive: true });
  cpSync(join(repository, 'dist'), join(image, 'dist'), { recursive: true });
  mkdirSync(join(image, 'node_modules', '.bin'), { recursive: true });
  symlinkSync(process.execPath, join(image, 'node_modules', '.bin', 'node'));
  return join(image, 'bin', 'culvert');
}

const silent = { info() {}, warn() {} };

/** Starts the bundled agent in the node's namespace and enrols the pods; everything is removed by `stop`. */
export async function startMesh({ enrolled, plain, workers, controlPlane }: MeshOptions): Promise<Mesh> {
  const network = await createPodNetwork();
  const stops: (() => Promise<void> | void)[] = [() => network.close()];
  const stop = async () => {
    for (const end of stops.reverse()) await end();
  };
  try {
    const enrolledPods: Pod[] = [];
    const plainPods: Pod[] = [];
    for (const name of enrolled) enrolledPods.push(await network.addPod(name));
    for (const name of plain) plainPods.push(await network.addPod(name));

    const config = join(network.folder, 'mesh.yaml');
    writeFileSync(config, stringify({ workloads: enrolledPods.map(workload), services: [], policies: [] }));
    const socket = join(network.folder, 'zds.sock');
    const zds = startZdsServer({ path: socket, log: silent });
    stops.push(() => zds.close());
    const rules = await chooseRulesBackend();
    const more = (await controlPlane?.(network.node.fd)) ?? {};
    const agent = await startProcess([makeImage(network.folder), 'agent'], {
      netns: network.node.fd,
      env: { ...agentSettings(network.folder, config, socket, workers), ...more },
      ready: { port: READINESS_PORT },
    });
    stops.push(() => agent.stop());
    await zds.whenAgent();
    for (const pod of enrolledPods) {
      await rules.apply(pod.netns.fd, defaultPodRules);
      const info = { name: pod.name, namespace: NAMESPACE, serviceAccount: pod.name };
      await zds.add({ uid: `uid-${pod.name}`, ...info }, pod.netns.duplicate());
    }
    return { agent, enrolled: enrolledPods, plain: plainPods, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Of an agent with mesh state and certificates of its own. */
export function agentSettings(folder: string, mesh: string, socket: string, workers: number): Record<string, string> {
  return {
    INPOD_UDS: socket,
    LOCAL_XDS_PATH: mesh,
    // Memory is read from outside, which in a user namespace takes this.
    CULVERT_ALLOW_DUMPS: 'true',
    XDS_ADDRESS: '',
    CA_ADDRESS: '',
    CULVERT_CA_DIR: join(folder, 'ca'),
    NODE_NAME: 'bench',
    ZTUNNEL_WORKER_THREADS: String(workers),
    RUST_LOG: 'warn',
  };
}

const NAMESPACE = 'bench';
/** The default, in the node's namespace, where nobody else listens. */
const READINESS_PORT = 15021;

export function workload({ name, ipv4 }: Pod): object {
  return {
    uid: `Kubernetes//Pod/${NAMESPACE}/${name}`,
    name,
    namespace: NAMESPACE,
    trustDomain: 'cluster.local',
    serviceAccount: name,
    workloadIps: [ipv4],
    protocol: 'HBONE',
    node: 'bench',
    clusterId: 'Kubernetes',
    workloadName: name,
    workloadType: 'deployment',
    canonicalName: name,
    canonicalRevision: 'v1',
    services: {},
  };
}
