/** An agent without a data plane, and a node agent, over a real socket; for the agent, time passes when told to. */
import { once } from 'node:events';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { startZdsClient, type ZdsClient } from '../../src/zds/client.ts';
import { startZdsServer, type ZdsServer } from '../../src/zds/server.ts';
import { createZdsSession, type Readiness, type ZdsSession } from '../../src/zds/session.ts';
import type { PodInfo, PodManager } from '../../src/zds/types.ts';
import { listeningPods } from '../support/listening-pods.ts';
import { type Pod, type PodNetwork, podNetwork } from '../support/pods.ts';
import { type ManualTimers, manualTimers } from '../support/timers.ts';

export const quiet = { info() {}, warn() {}, error() {} };
export const info = (pod: Pod): PodInfo => ({
  uid: `uid-${pod.name}`,
  name: pod.name,
  namespace: 'ns',
  serviceAccount: 'sa',
});

export interface Agent {
  readonly pods: PodManager;
  readonly session: ZdsSession;
  readonly client: ZdsClient;
  readonly timers: ManualTimers;
  /** Resolves when the agent is in that state; at once when it is. */
  when(readiness: Readiness): Promise<void>;
}

export function startAgent(t: TestContext, path: string): Agent {
  const pods = listeningPods();
  t.after(() => pods.close());
  return startAgentOver(t, path, pods);
}

export function startAgentOver(t: TestContext, path: string, pods: PodManager): Agent {
  const timers = manualTimers();
  const events = new EventTarget();
  const session = createZdsSession({
    pods,
    timers,
    log: quiet,
    onReadiness: (readiness) => events.dispatchEvent(new Event(readiness)),
  });
  const client = startZdsClient({ path, session, timers, log: quiet, random: () => 0.5 });
  t.after(() => {
    client.close();
    session.close();
  });
  return {
    pods,
    session,
    client,
    timers,
    async when(readiness) {
      if (session.readiness() !== readiness) await once(events, readiness);
    },
  };
}

export function nodeAgent(t: TestContext, path: string): ZdsServer {
  const server = startZdsServer({ path, log: quiet });
  t.after(() => server.close());
  return server;
}

export async function enrol(server: ZdsServer, pod: Pod): Promise<void> {
  await server.add(info(pod), pod.netns.duplicate());
}

export async function listening(pod: Pod): Promise<string[]> {
  const { stdout } = await pod.run(['ss', '-Hltn']);
  return [...stdout.matchAll(/\*:(\d+) /g)].map(([, port]) => port!).sort();
}

export const ALL_PORTS = ['15001', '15006', '15008'];

export async function setUp(t: TestContext): Promise<{ network: PodNetwork; path: string }> {
  const network = await podNetwork(t);
  return { network, path: join(network.folder, 'zds.sock') };
}
