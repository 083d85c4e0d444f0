/** Agents under test: child processes, each with a mesh file of its own, and pods for them to serve. */
import type { ChildProcess } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, readlinkSync, renameSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { inspect } from 'node:util';
import type { ConfigDump } from '../../src/admin/config-dump.ts';
import { chooseRulesBackend } from '../../src/cni/rules/backend.ts';
import { defaultPodRules } from '../../src/cni/rules/pod-rules.ts';
import { createPodNetwork } from '../../src/demo/pod-network.ts';
import type { Logger } from '../../src/log/logger.ts';
import { startZdsServer, type ZdsServer } from '../../src/zds/server.ts';
import type { PodInfo } from '../../src/zds/types.ts';
import { type AccessLine, readAccessLine } from './access-log.ts';
import { runCulvert } from './culvert-process.ts';
import { freePorts } from './free-ports.ts';
import { closeConnections, patiently } from './pod-sockets.ts';
import type { Pod, PodNetwork } from './pods.ts';
import './pods.ts';
import { PATIENCE_MS } from './patience.ts';
import { readSamples, type Sample } from './samples.ts';

/** A pod network with agents in it. */
export interface MeshNetwork extends PodNetwork {
  /** Has something ended before the network goes, the last one first. */
  defer(end: () => unknown): void;
  /** What is printed by whom; a test that fails shows the end of it. */
  readonly logs: Map<string, () => string>;
}

/** Removed when the test ends, and with it every agent and every connection that was made in it. */
export async function meshNetwork(t: TestContext): Promise<MeshNetwork> {
  const network = await createPodNetwork();
  const ends = new AsyncDisposableStack();
  ends.defer(() => network.close());
  const logs: MeshNetwork['logs'] = new Map();
  const showLogs = (of: Pick<TestContext, 'passed' | 'diagnostic'>) => {
    if (!of.passed) for (const [name, log] of logs) of.diagnostic(`${name} said:\n${tail(log())}`);
  };
  t.afterEach((subtest) => showLogs(subtest as TestContext));
  t.after(async () => {
    showLogs(t);
    // First the connections: an agent that is told to stop waits for them.
    closeConnections();
    await ends.disposeAsync();
  });
  return { ...network, defer: (end) => ends.defer(async () => void (await end())), logs };
}

export interface TestAgent {
  readonly zds: ZdsServer;
  readonly adminPort: number;
  readonly child: ChildProcess;
  /** The folder of the CA that signs for its pods. */
  readonly caDir: string;
  /** Everything it has printed so far. */
  output(): string;
  /** The first line printed after the position `after` that holds the text; waits for it. */
  line(text: string, after?: number): Promise<string>;
  /** The same for an access log line. */
  access(matches: (line: AccessLine) => boolean, after?: number): Promise<AccessLine>;
  /** Where its output ends now: what follows is news. */
  here(): number;
  writeMesh(mesh: Mesh | string): void;
  /** The same, and waits until every thread goes by it. */
  apply(mesh: Mesh): Promise<void>;
  get(path: string, port?: number): Promise<HttpAnswer>;
  post(path: string): Promise<HttpAnswer>;
  /** What the readiness probe gets. */
  ready(): Promise<HttpAnswer>;
  /** Each thread has a part in it, and gives it after it has done all that it was told before. */
  dump(): Promise<ConfigDump>;
  /** With all that has happened in every thread until now. */
  metrics(): Promise<Sample[]>;
  /** Asks until the answer satisfies, for what the agent tells only when asked. */
  until<T>(what: string, ask: () => Promise<T>, satisfies: (answer: T) => boolean): Promise<T>;
  /** Waits until no pod has a connection. */
  atRest(): Promise<void>;
  /** What its descriptors are, by kind: 'socket', 'anon_inode:[eventpoll]' … */
  descriptors(): Map<string, number>;
  /** Applies the capture rules to a pod and enrols it. */
  enrol(pod: Pod, info?: PodInfo): Promise<void>;
  /** Resolves with the exit code. */
  readonly exited: Promise<number | null>;
  /** Ends it as Kubernetes would; resolves with the exit code. Harmless the second time. */
  stop(): Promise<number | null>;
}

export interface HttpAnswer {
  readonly status: number;
  readonly body: string;
}

export interface TestAgentOptions {
  readonly network: MeshNetwork;
  readonly name?: string;
  readonly mesh: Mesh;
  /** Shared by agents that are to trust each other. */
  readonly caDir?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Connects to the node agent of this one, as a successor does. */
  readonly besides?: TestAgent;
  /** Open descriptors that it may have. */
  readonly maxDescriptors?: number;
  /** Address of the only DNS server that it knows. */
  readonly resolver?: string;
  /** Admin, metrics and readiness, for who asks before the agent has started. */
  readonly ports?: readonly number[];
}

/** The local file's sections. Fields that are not said have the file's defaults. */
export interface Mesh {
  readonly workloads?: readonly Readonly<Record<string, unknown>>[];
  readonly services?: readonly Readonly<Record<string, unknown>>[];
  readonly policies?: readonly Readonly<Record<string, unknown>>[];
}

const quiet = { info() {}, warn() {} } as unknown as Logger;

/** A user namespace does not map all ids to themselves. */
const isRootOfMachine = /^\s*0\s+0\s+4294967295\s*$/.test(readFileSync('/proc/self/uid_map', 'utf8'));

export async function startAgent(options: TestAgentOptions): Promise<TestAgent> {
  const { network, name = 'agent', mesh, caDir = join(network.folder, 'ca'), env = {}, besides } = options;
  const { maxDescriptors = null, resolver } = options;
  const folder = join(network.folder, name);
  mkdirSync(folder, { recursive: true });
  const meshFile = join(folder, 'mesh.yaml');
  writeFileSync(meshFile, meshText(mesh));
  const { zds, socket } = nodeAgentOf(besides) ?? startNodeAgent(join(folder, 'zds.sock'));
  if (besides === undefined) network.defer(() => zds.close());
  const agentsBefore = zds.agents();
  const ports = options.ports ?? (await freePorts(3));
  const [adminPort, statsPort, readinessPort] = ports as [number, number, number];
  const { child, exited, output, watch } = runCulvert(
    ['agent'],
    {
      XDS_ADDRESS: '',
      LOCAL_XDS_PATH: meshFile,
      CULVERT_CA_DIR: caDir,
      INPOD_UDS: socket,
      NODE_NAME: 'node-a',
      ZTUNNEL_WORKER_THREADS: '2',
      CULVERT_ADMIN_PORT: String(adminPort),
      CULVERT_STATS_PORT: String(statsPort),
      CULVERT_READINESS_PORT: String(readinessPort),
      // `descriptors` looks into the process, which only root of the machine may when it denies that.
      ...(isRootOfMachine ? {} : { CULVERT_ALLOW_DUMPS: 'true' }),
      ...env,
    },
    maxDescriptors,
    resolver === undefined ? [] : withResolver(folder, resolver),
  );

  /** The first line after a position that `find` makes something of. */
  function search<T>(what: string, after: number, find: (line: string) => T | null): Promise<T> {
    return new Promise((resolve, reject) => {
      const look = () => {
        // The last piece is not a whole line yet.
        const lines = output().slice(after).split('\n').slice(0, -1);
        for (const line of lines) {
          const found = find(line);
          if (found === null) continue;
          clearTimeout(timer);
          stopWatching();
          resolve(found);
          return;
        }
      };
      const timer = setTimeout(() => {
        stopWatching();
        reject(new Error(`no line with ${what} within ${PATIENCE_MS / 1000} s; the agent said:\n${tail(output())}`));
      }, PATIENCE_MS);
      const stopWatching = watch(look);
      look();
    });
  }

  const agent: TestAgent = {
    zds,
    adminPort,
    child,
    caDir,
    output,
    exited,
    here: () => output().length,
    line: (text, after = 0) => search(JSON.stringify(text), after, (line) => (line.includes(text) ? line : null)),
    access: (matches, after = 0) =>
      search(`an access log entry for which ${matches}`, after, (text) => {
        const line = readAccessLine(text);
        return line !== null && matches(line) ? line : null;
      }),
    writeMesh(next) {
      // As editors and the kubelet do it.
      const fresh = `${meshFile}.new`;
      writeFileSync(fresh, typeof next === 'string' ? next : meshText(next));
      renameSync(fresh, meshFile);
    },
    async apply(next) {
      const before = agent.here();
      agent.writeMesh(next);
      await agent.line('local file applied', before);
      await agent.dump();
    },
    get: (path, port = adminPort) => fetchText('GET', port, path),
    post: (path) => fetchText('POST', adminPort, path),
    ready: () => fetchText('GET', readinessPort, '/healthz/ready'),
    dump: async () => JSON.parse((await fetchText('GET', adminPort, '/config_dump')).body),
    async metrics() {
      const scrape = () => fetchText('GET', statsPort, '/metrics');
      // A scrape leaves out what a thread reports after a second. The report has come when the thread has answered to more.
      await scrape();
      await agent.dump();
      return readSamples((await scrape()).body);
    },
    async until(what, ask, satisfies) {
      for (const end = performance.now() + PATIENCE_MS; ; ) {
        const answer = await ask();
        if (satisfies(answer)) return answer;
        if (performance.now() > end) {
          throw new Error(
            `not ${what} within ${PATIENCE_MS / 1000} s, last: ${inspect(answer, { depth: 4 })}; the agent said:\n${tail(output())}`,
          );
        }
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    },
    async atRest() {
      await agent.until(
        'rid of all connections',
        async () => Object.values((await agent.dump()).workloadState),
        (pods) => pods.every(({ connections: c }) => c!.inbound.length + c!.outbound.length === 0),
      );
    },
    descriptors: () => descriptorsOf(child.pid!),
    async enrol(pod, info = podInfo(pod.name)) {
      const backend = await chooseRulesBackend();
      await backend.apply(pod.netns.fd, defaultPodRules);
      await zds.add(info, pod.netns.duplicate());
    },
    async stop() {
      child.kill('SIGTERM');
      return exited;
    },
  };
  nodeAgents.set(agent, { zds, socket });
  network.logs.set(name, output);
  network.defer(() =>
    patiently('it does not end', agent.stop()).catch((error: Error) => {
      child.kill('SIGKILL');
      throw new Error(`${error.message}; ${name} said:\n${tail(output())}`);
    }),
  );
  await Promise.race([
    besides === undefined
      ? zds.whenAgent()
      : agent.until(
          'connected',
          async () => zds.agents(),
          (agents) => agents > agentsBefore,
        ),
    exited.then((code) => {
      throw new Error(`the agent ended with ${code} before it connected:\n${output()}`);
    }),
  ]);
  return agent;
}

/** Runs a command with a resolv.conf of its own. */
function withResolver(folder: string, server: string): string[] {
  const file = join(folder, 'resolv.conf');
  writeFileSync(file, `nameserver ${server}\n`);
  const script = 'mount --bind "$0" /etc/resolv.conf && exec "$@"';
  return ['unshare', '--mount', 'sh', '-c', script, file];
}

/** A pod of the local file, by its name; service account and workload are named like it. */
export function podInfo(name: string, namespace = 'demo'): PodInfo {
  return { uid: `uid-${name}`, name, namespace, serviceAccount: name };
}

/** The SPIFFE id of such a pod. */
export function identityOf(pod: Pod, namespace = 'demo'): string {
  return `spiffe://cluster.local/ns/${namespace}/sa/${pod.name}`;
}

/** The local file's entry of such a pod, captured unless `protocol` says TCP. */
export function workload(pod: Pod, more: Readonly<Record<string, unknown>> = {}): Readonly<Record<string, unknown>> {
  return {
    uid: workloadUid(pod),
    name: pod.name,
    namespace: 'demo',
    trustDomain: 'cluster.local',
    serviceAccount: pod.name,
    workloadIps: [pod.ipv4, pod.ipv6].filter((ip) => ip !== null),
    protocol: 'HBONE',
    node: 'node-a',
    clusterId: 'Kubernetes',
    workloadName: pod.name,
    workloadType: 'pod',
    canonicalName: pod.name,
    canonicalRevision: 'latest',
    services: {},
    ...more,
  };
}

export function workloadUid({ name }: Pod): string {
  return `Kubernetes//Pod/demo/${name}`;
}

/** The entry of a service in namespace demo, with the ports that lead to `targetPort` of workloads that name it. */
export function service(name: string, vip: string, ports: Readonly<Record<number, number>>) {
  return { name, namespace: 'demo', hostname: `${name}.demo.svc.cluster.local`, vips: [`/${vip}`], ports };
}

/** The entry of a policy. */
export function policy(
  name: string,
  scope: 'Global' | 'Namespace' | 'WorkloadSelector',
  action: 'Allow' | 'Deny',
  matches: readonly Readonly<Record<string, unknown>>[],
) {
  return { name, namespace: 'demo', scope, action, dryRun: false, rules: [[matches]] };
}

/** JSON is YAML. */
export function meshText(mesh: Mesh): string {
  return JSON.stringify(mesh, null, 2);
}

/** Whether there are no more descriptors of any kind than before. */
export function noMoreThan(before: ReadonlyMap<string, number>): (now: ReadonlyMap<string, number>) => boolean {
  return (now) => [...now].every(([kind, count]) => count <= (before.get(kind) ?? 0));
}

function tail(text: string): string {
  return text.split('\n').slice(-30).join('\n');
}

interface NodeAgent {
  readonly zds: ZdsServer;
  readonly socket: string;
}

const nodeAgents = new WeakMap<TestAgent, NodeAgent>();

function nodeAgentOf(agent: TestAgent | undefined): NodeAgent | undefined {
  return agent === undefined ? undefined : nodeAgents.get(agent);
}

function startNodeAgent(socket: string): NodeAgent {
  return { zds: startZdsServer({ path: socket, log: quiet, answerMs: PATIENCE_MS }), socket };
}

function descriptorsOf(pid: number): Map<string, number> {
  const kinds = new Map<string, number>();
  for (const name of readdirSync(`/proc/${pid}/fd`)) {
    let target: string;
    try {
      target = readlinkSync(`/proc/${pid}/fd/${name}`);
    } catch {
      continue; // closed since
    }
    const kind = target.replace(/:\[\d+\]$/, '');
    kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
  }
  return kinds;
}

function fetchText(method: string, port: number, path: string): Promise<HttpAnswer> {
  return new Promise((resolve, reject) => {
    const call = request({ host: '127.0.0.1', port, path, method, agent: false }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (chunk: string) => {
        body += chunk;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body }));
    });
    call.on('error', reject);
    call.end();
  });
}
