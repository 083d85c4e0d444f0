import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ConfigDump } from '../../src/admin/config-dump.ts';
import { chooseRulesBackend } from '../../src/cni/rules/backend.ts';
import { defaultPodRules } from '../../src/cni/rules/pod-rules.ts';
import type { Logger } from '../../src/log/logger.ts';
import { startZdsServer, type ZdsServer } from '../../src/zds/server.ts';
import type { PodInfo } from '../../src/zds/types.ts';
import type { Pod, PodNetwork } from './pods.ts';

const cli = fileURLToPath(new URL('../../src/cli.ts', import.meta.url));

/** An agent as a child process, with its own node agent (a ZDS server), mesh file and CA folder. */
export interface TestAgent {
  readonly zds: ZdsServer;
  readonly adminPort: number;
  readonly child: ChildProcess;
  readonly meshFile: string;
  /** Everything it has printed so far. */
  output(): string;
  /** Resolves with the first line, from now or before, that holds the text; rejects after 10 s. */
  line(text: string, after?: number): Promise<string>;
  writeMesh(yaml: string): void;
  get(path: string, port?: number): Promise<{ status: number; body: string }>;
  post(path: string): Promise<{ status: number; body: string }>;
  dump(): Promise<ConfigDump>;
  metrics(): Promise<string>;
  /** Applies the capture rules to a pod and enrols it. */
  enrol(pod: Pod, info: PodInfo): Promise<void>;
  /** Ends it as Kubernetes would; resolves with the exit code. */
  stop(): Promise<number | null>;
}

export interface TestAgentOptions {
  readonly network: PodNetwork;
  readonly name: string;
  readonly mesh: string;
  /** Shared by agents that are to trust each other. */
  readonly caDir?: string;
  readonly env?: Readonly<Record<string, string>>;
}

const quiet = { info() {}, warn() {} } as unknown as Logger;

export async function startAgent({ network, name, mesh, caDir, env = {} }: TestAgentOptions): Promise<TestAgent> {
  const folder = join(network.folder, name);
  mkdirSync(folder, { recursive: true });
  const meshFile = join(folder, 'mesh.yaml');
  writeFileSync(meshFile, mesh);
  const socket = join(folder, 'zds.sock');
  const zds = startZdsServer({ path: socket, log: quiet });
  const [adminPort, statsPort, readinessPort] = await Promise.all([freePort(), freePort(), freePort()]);
  const child = spawn(process.execPath, [cli, 'agent'], {
    env: {
      PATH: process.env.PATH,
      ...(process.env.CULVERT_ADDON === undefined ? {} : { CULVERT_ADDON: process.env.CULVERT_ADDON }),
      XDS_ADDRESS: '',
      LOCAL_XDS_PATH: meshFile,
      CULVERT_CA_DIR: caDir ?? join(network.folder, 'ca'),
      INPOD_UDS: socket,
      NODE_NAME: 'node-a',
      ZTUNNEL_WORKER_THREADS: '2',
      CULVERT_ADMIN_PORT: String(adminPort),
      CULVERT_STATS_PORT: String(statsPort),
      CULVERT_READINESS_PORT: String(readinessPort),
      ...env,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  const watchers = new Set<() => void>();
  const collect = (chunk: Buffer) => {
    output += chunk;
    for (const watcher of [...watchers]) watcher();
  };
  child.stdout.on('data', collect);
  child.stderr.on('data', collect);
  const exited = new Promise<number | null>((resolve) => child.on('exit', resolve));

  const agent: TestAgent = {
    zds,
    adminPort,
    child,
    meshFile,
    output: () => output,
    line(text, after = 0) {
      return new Promise((resolve, reject) => {
        const look = () => {
          const found = output
            .slice(after)
            .split('\n')
            .find((line) => line.includes(text));
          if (found === undefined) return;
          clearTimeout(timer);
          watchers.delete(look);
          resolve(found);
        };
        const timer = setTimeout(() => {
          watchers.delete(look);
          reject(new Error(`no line with ${JSON.stringify(text)} within 10 s; the agent said:\n${output}`));
        }, 10_000);
        watchers.add(look);
        look();
      });
    },
    writeMesh: (yaml) => writeFileSync(meshFile, yaml),
    get: (path, port = adminPort) => fetchText('GET', port, path),
    post: (path) => fetchText('POST', adminPort, path),
    dump: async () => JSON.parse((await fetchText('GET', adminPort, '/config_dump')).body),
    metrics: async () => (await fetchText('GET', statsPort, '/metrics')).body,
    async enrol(pod, info) {
      const backend = await chooseRulesBackend();
      await backend.apply(pod.netns.fd, defaultPodRules);
      await zds.add(info, pod.netns.duplicate());
    },
    async stop() {
      child.kill('SIGTERM');
      const code = await exited;
      zds.close();
      return code;
    },
  };
  child.on('error', (error) => collect(Buffer.from(String(error))));
  await Promise.race([
    zds.whenAgent(),
    exited.then((code) => {
      zds.close();
      throw new Error(`the agent ended with ${code} before it connected:\n${output}`);
    }),
  ]);
  return agent;
}

/** A pod of the local file, by its name; service account and workload are named like it. */
export function podInfo(name: string, namespace = 'demo'): PodInfo {
  return { uid: `uid-${name}`, name, namespace, serviceAccount: name };
}

/** The local file's entry of such a pod. */
export function workloadYaml(
  pod: Pod,
  options: { protocol?: 'HBONE' | 'TCP'; services?: string; more?: string } = {},
): string {
  const { protocol = 'HBONE', services = '{}', more = '' } = options;
  const ips = [pod.ipv4, pod.ipv6].filter((ip) => ip !== null).map((ip) => JSON.stringify(ip));
  return `- uid: cluster1//v1/Pod/demo/${pod.name}
  name: ${pod.name}
  namespace: demo
  trustDomain: cluster.local
  serviceAccount: ${pod.name}
  workloadIps: [${ips.join(', ')}]
  protocol: ${protocol}
  node: node-a
  workloadName: ${pod.name}
  workloadType: pod
  canonicalName: ${pod.name}
  canonicalRevision: latest
  services: ${services}
${more}`;
}

/** A free TCP port of the own namespace. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}

function fetchText(method: string, port: number, path: string): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const call = request({ host: '127.0.0.1', port, path, method, agent: false }, (response) => {
      let body = '';
      response.on('data', (chunk) => {
        body += chunk;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body }));
    });
    call.on('error', reject);
    call.end();
  });
}
