import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { chooseRulesBackend, type RulesBackend } from '../cni/rules/backend.ts';
import { defaultPodRules } from '../cni/rules/pod-rules.ts';
import { CulvertError } from '../errors.ts';
import { startZdsServer, type ZdsServer } from '../zds/server.ts';
import { type AgentProcess, observeAgent } from './agent-process.ts';
import { answerDoor, freePort } from './door.ts';
import { captureLink, type LinkCapture } from './link-capture.ts';
import { createPodNetwork, type Pod, type PodNetwork } from './pod-network.ts';
import { createOwnedProcesses } from './processes.ts';
import { actors, meshFile, NAMESPACE, NODE, WEB_PORT } from './scene.ts';
import { LISTENING } from './web-server.ts';

/** Everything the story needs, up and running: pods, web servers, links under observation, the agent. */
export interface Stage {
  readonly pods: ReadonlyMap<string, Pod>;
  readonly agent: AgentProcess;
  /** What passes the links of the pods, by pod. */
  readonly links: ReadonlyMap<string, LinkCapture>;
  /** Ports of the agent on loopback, as this process reaches them. */
  readonly ports: Ports;
  /** The same, as the user reaches them. */
  readonly userPorts: Ports;
  /** The stage is in a network that is not the user's. */
  readonly throughDoor: boolean;
  readonly rules: RulesBackend;
  /** The mesh as the agent reads it: a file to try edits on. */
  readonly meshFile: string;
}

export interface Ports {
  readonly admin: number;
  readonly metrics: number;
}

/** Builds the stage in steps; `close` takes down whatever has been built so far. */
export interface StageBuilder {
  /** Pods with their web servers; nothing is enrolled yet. */
  makePods(): Promise<ReadonlyMap<string, Pod>>;
  startAgent(): Promise<AgentProcess>;
  /** Capture rules into each pod, then its namespace to the agent. */
  enrol(): Promise<void>;
  /** The stage, once everything is up. */
  stage(): Stage;
  close(): Promise<void>;
}

/** `echoLog` gets every line that the agent writes. */
export function createStage(echoLog: ((line: string) => void) | null): StageBuilder {
  const ends: (() => Promise<void> | void)[] = [];
  const pods = new Map<string, Pod>();
  const links = new Map<string, LinkCapture>();
  let network: PodNetwork | null = null;
  let zds: ZdsServer | null = null;
  let rules: RulesBackend | null = null;
  let agent: AgentProcess | null = null;
  let ports: Ports | null = null;
  let userPorts: Ports | null = null;
  let throughDoor = false;
  let meshPath = '';

  return {
    async makePods() {
      network = await createPodNetwork();
      const { close, node } = network;
      ends.push(close);
      for (const actor of actors) {
        const pod = await network.addPod(actor.name);
        pods.set(actor.name, pod);
        const link = captureLink(node.fd, pod.link);
        links.set(actor.name, link);
        ends.push(() => link.close());
      }
      await Promise.all(actors.filter(({ serves }) => serves).map(({ name }) => startWebServer(pods.get(name)!)));
      return pods;
    },
    async startAgent() {
      const { folder } = network!;
      rules = await chooseRulesBackend();
      meshPath = join(folder, 'mesh.yaml');
      writeFileSync(meshPath, meshFile(pods));
      const socket = join(folder, 'zds.sock');
      const server = startZdsServer({ path: socket, log: { info() {}, warn() {} } });
      zds = server;
      ends.push(() => server.close());
      const readiness = await freePort(15021);
      ports = { admin: await freePort(15000), metrics: await freePort(15020) };
      const door = answerDoor({ ...ports });
      throughDoor = door !== null;
      if (door !== null) ends.push(() => door.close());
      userPorts = door === null ? ports : { admin: door.ports.get('admin')!, metrics: door.ports.get('metrics')! };

      const processes = createOwnedProcesses();
      ends.push(() => processes.stop(AGENT_GRACE_MS));
      const child = processes.start([join(installation(), 'bin', 'culvert'), 'agent'], {
        env: {
          INPOD_UDS: socket,
          LOCAL_XDS_PATH: meshPath,
          XDS_ADDRESS: '',
          CULVERT_CA_DIR: join(folder, 'ca'),
          CULVERT_ADMIN_PORT: `${ports.admin}`,
          CULVERT_STATS_PORT: `${ports.metrics}`,
          CULVERT_READINESS_PORT: `${readiness}`,
          NODE_NAME: NODE,
          CLUSTER_ID: 'demo',
          CONNECTION_TERMINATION_DEADLINE: '1s',
        },
      });
      agent = observeAgent(child, echoLog);
      await inTime(Promise.race([server.whenAgent(), agent.died]), AGENT_START_MS, 'the agent did not connect');
      return agent;
    },
    async enrol() {
      for (const { name, serviceAccount, enrolled } of actors) {
        if (!enrolled) continue;
        const pod = pods.get(name)!;
        await rules!.apply(pod.netns.fd, defaultPodRules);
        const info = { uid: randomUUID(), name, namespace: NAMESPACE, serviceAccount };
        await Promise.race([zds!.add(info, pod.netns.duplicate()), agent!.died]);
      }
    },
    stage: () => ({
      pods,
      links,
      agent: agent!,
      rules: rules!,
      ports: ports!,
      userPorts: userPorts!,
      throughDoor,
      meshFile: meshPath,
    }),
    async close() {
      while (ends.length > 0) await ends.pop()!();
    },
  };
}

/** Longer than a cold start on a small and busy machine takes, addon and type stripping included. */
const AGENT_START_MS = 60_000;
/** More than the agent's own deadline for connections. */
const AGENT_GRACE_MS = 4000;
const WEB_START_MS = 60_000;

async function startWebServer(pod: Pod): Promise<void> {
  const self = [process.execPath, ...process.execArgv, process.argv[1]!];
  const child = pod.start([...self, 'demo', 'web-server', pod.name, `${WEB_PORT}`]);
  let said = '';
  child.stderr!.on('data', (chunk: Buffer) => {
    said += chunk.toString();
  });
  const ended = once(child, 'close').then(() => {
    throw new CulvertError('DEMO_FAILED', `the web server of ${pod.name} ended: ${said.trim()}`);
  });
  const listening = (async () => {
    for await (const chunk of child.stdout!) if (String(chunk).includes(LISTENING)) return;
  })();
  // Once it is up, its end is the end of the demo.
  ended.catch(() => {});
  await inTime(Promise.race([listening, ended]), WEB_START_MS, `the web server of ${pod.name} did not start`);
}

async function inTime<T>(work: Promise<T>, ms: number, otherwise: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new CulvertError('DEMO_FAILED', `${otherwise} within ${ms / 1000} s`)), ms);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Where this program is installed: bin/culvert lies beside the folder of the program, in a checkout and in an image. */
function installation(): string {
  return dirname(dirname(process.argv[1]!));
}
