/**
 * *enrol*: what it takes to bring pods into the mesh. A node agent and an agent, both bundled, a real API server, and pods
 * with namespaces and processes of their own.
 */
import { writeFileSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { stringify } from 'yaml';
import { chooseRulesBackend } from '../src/cni/rules/backend.ts';
import { defaultPodRules } from '../src/cni/rules/pod-rules.ts';
import type { Pod } from '../src/demo/pod-network.ts';
import { runChecked } from '../src/netns/run.ts';
import { noApiServer } from '../test/cni/support/api-server.ts';
import { eventually } from '../test/cni/support/eventually.ts';
import { nodeAgentSettings, type TestNode, testNode } from '../test/cni/support/node.ts';
import type { Bench } from './harness/bench.ts';
import { type Bound, type Figure, median } from './harness/figures.ts';
import { agentSettings, makeImage, workload } from './harness/mesh.ts';
import { residentBytes, startProcess } from './harness/processes.ts';

const NAMESPACE = 'bench';
const AT_ONCE = 5;
const MEGABYTE = 1024 * 1024;
/** Collectors give back what a burst has taken a while after it. */
const SETTLE_MS = 10_000;
const plugin = fileURLToPath(new URL('../native/cni-plugin/build/culvert-cni', import.meta.url));

export const enrol: Bench = async ({ quick, workers, progress }) => {
  if (noApiServer !== false) {
    progress(`enrol: left out: ${noApiServer}`);
    return [];
  }
  const count = quick ? 25 : 250;
  const rounds = quick ? 2 : 20;
  const ends: (() => unknown)[] = [];
  try {
    const node = await testNode({ after: (end: () => unknown) => void ends.push(end) } as Parameters<
      typeof testNode
    >[0]);
    const figures = [await rulesOfOnePod(node, quick ? 10 : 50)];

    progress(`enrol: making ${count} pods`);
    await node.addNamespace(NAMESPACE, { 'istio.io/dataplane-mode': 'ambient' });
    const pods: Pod[] = [];
    for (let index = 0; index < count; index++) {
      const name = `p${index}`;
      pods.push(await node.runPod(NAMESPACE, name, await addPodObject(node, name)));
    }
    const api = await countingProxy(node.api.port);
    ends.push(() => api.close());
    const mesh = join(node.network.folder, 'mesh.yaml');
    writeFileSync(mesh, stringify({ workloads: pods.map(workload), services: [], policies: [] }));
    const image = makeImage(node.network.folder);

    const started = performance.now();
    const [agent, nodeAgent] = await Promise.all([
      startProcess([image, 'agent'], {
        netns: node.network.node.fd,
        env: agentSettings(node.network.folder, mesh, node.zdsPath, workers),
        ready: { port: 15021 },
      }),
      startProcess([image, 'cni'], {
        env: {
          ...nodeAgentSettings(node),
          KUBERNETES_SERVICE_PORT: String(api.port),
          CULVERT_ALLOW_DUMPS: 'true',
          RUST_LOG: 'info',
        },
        ready: { line: /culvert node agent started/ },
      }),
    ]);
    ends.push(
      () => agent.stop(),
      () => nodeAgent.stop(),
    );
    await eventually('all are enrolled', async () => (await enrolled(node)) === count, 120_000);
    const seconds = (performance.now() - started) / 1000;
    figures.push(
      figure(`${count} pods from a cold start`, 'both agents start', seconds, `${seconds.toFixed(1)} s`, {
        atMost: 10,
      }),
    );

    await delay(SETTLE_MS);
    const resident = (pid: number) => residentBytes(pid) / MEGABYTE;
    const megabytes = (value: number) => `${value.toFixed(1)} MB`;
    const [own, agents] = [resident(nodeAgent.pid), resident(agent.pid)];
    figures.push(
      figure(`node agent, ${count} pods`, 'resident', own, megabytes(own), { atMost: 90 }),
      figure(`agent, ${count} pods, ${workers} threads`, 'resident', agents, megabytes(agents), null),
    );
    const sent = api.sent();
    await delay(quick ? 2000 : 15_000);
    const more = api.sent() - sent;
    figures.push(figure('at rest', 'sent to the API server', more, `${more} bytes`, { atMost: 0 }));

    figures.push(...(await pluginDelays(node, rounds)));
    return figures;
  } finally {
    for (const end of ends.reverse()) await end();
  }
};

async function rulesOfOnePod({ network }: TestNode, count: number): Promise<Figure> {
  const backend = await chooseRulesBackend();
  const times: number[] = [];
  for (let index = 0; index < count; index++) {
    const pod = await network.addPod(`r${index}`);
    const start = performance.now();
    await backend.apply(pod.netns.fd, defaultPodRules);
    times.push(performance.now() - start);
    await network.removePod(pod);
  }
  const middle = median(times);
  return figure('rules of one pod', `${backend.name}, median of ${count}`, middle, `${middle.toFixed(1)} ms`, {
    atMost: 15,
  });
}

/** What a runtime waits for the plugin when several pods start: pods that the API server knows, in new namespaces. */
async function pluginDelays(node: TestNode, rounds: number): Promise<Figure[]> {
  const times: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const calls: string[] = [];
    for (let index = 0; index < AT_ONCE; index++) {
      const name = `s${round}-${index}`;
      const uid = await addPodObject(node, name);
      calls.push(timedCall(node, await node.network.addPod(name), uid));
    }
    // By a shell, which starts programs faster than a process as large as this one.
    const printed = await runChecked(['bash', '-c', `${calls.join('\n')}\nwait`]);
    for (const line of printed.trim().split('\n')) {
      const [status, from, to] = line.split(' ').map(Number);
      if (status !== 0) throw new Error(`the plugin refused a pod: ${printed}`);
      times.push((to! - from!) / 1000);
    }
  }
  times.sort((a, b) => a - b);
  const at = (fraction: number) => times[Math.min(times.length - 1, Math.floor(times.length * fraction))]!;
  const measured = `${AT_ONCE} pods at once, ${times.length} starts`;
  return [
    figure('plugin, median', measured, at(0.5), `${at(0.5).toFixed(1)} ms`, { atMost: 30 }),
    figure('plugin, 99th percentile', measured, at(0.99), `${at(0.99).toFixed(1)} ms`, { atMost: 80 }),
  ];
}

/** A line for bash that calls the plugin with ADD in the background and prints its status, its start and its end in µs. */
function timedCall(node: TestNode, pod: Pod, uid: string): string {
  const ips = [`${pod.ipv4}/16`, ...(pod.ipv6 === null ? [] : [`${pod.ipv6}/64`])].map((address) => ({ address }));
  const config = JSON.stringify({
    cniVersion: '1.1.0',
    name: 'kube',
    type: 'culvert-cni',
    socket: node.pluginSocket,
    state: join(node.folders.state, 'cni-state'),
    prevResult: { cniVersion: '1.1.0', interfaces: [], ips, routes: [] },
  });
  const env = [
    'CNI_COMMAND=ADD',
    `CNI_CONTAINERID=container-${pod.name}`,
    `CNI_NETNS=${pod.netnsPath}`,
    'CNI_IFNAME=eth0',
    'CNI_PATH=/opt/cni/bin',
    `CNI_ARGS='IgnoreUnknown=1;K8S_POD_NAMESPACE=${NAMESPACE};K8S_POD_NAME=${pod.name};K8S_POD_UID=${uid}'`,
  ].join(' ');
  const call = `${env} ${plugin} <<< '${config}' >/dev/null`;
  return `( from=\${EPOCHREALTIME/./}; ${call}; echo "$? $from \${EPOCHREALTIME/./}" ) &`;
}

async function addPodObject(node: TestNode, name: string): Promise<string> {
  return await node.addPodObject(NAMESPACE, name, { spec: { serviceAccountName: name } });
}

async function enrolled(node: TestNode): Promise<number> {
  const { body } = await node.api.call('GET', `/api/v1/namespaces/${NAMESPACE}/pods?resourceVersion=0`);
  return JSON.stringify(body).split('"ambient.istio.io/redirection":"enabled"').length - 1;
}

/** Stands before the API server and counts what it is sent: TLS records without a request would be seen, too. */
async function countingProxy(target: number): Promise<{ port: number; sent(): number; close(): void }> {
  let sent = 0;
  const sockets = new Set<Socket>();
  const server: Server = createServer((client) => {
    const upstream = connect(target, '127.0.0.1');
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('error', () => socket.destroy()).on('close', () => sockets.delete(socket));
    }
    client.on('data', (chunk) => {
      sent += chunk.length;
    });
    client.pipe(upstream).pipe(client);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    port: (server.address() as { port: number }).port,
    sent: () => sent,
    close() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

function figure(name: string, measured: string, value: number, printed: string, bound: Bound): Figure {
  return { what: `enrol, ${name}`, measured, value, printed, bound };
}
