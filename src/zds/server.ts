import { listenSeqPacket, type Packet, type SeqPacketConnection } from '../../native/seqpacket.ts';
import { CulvertError, messageOf } from '../errors.ts';
import type { Logger } from '../log/logger.ts';
import { closeDescriptors, type NetnsHandle } from '../netns/handle.ts';
import { decodeHello, decodeResponse, encodeRequest } from './codec.ts';
import { type PodInfo, realTimers, type Timers, type WorkloadRequest } from './types.ts';

/**
 * The node agent's side of ZDS (spec node-01): tells every agent that connects which pods there are, then passes on
 * changes. It sends one request at a time per connection and waits for its acknowledgement; an agent that does not
 * answer in time is dropped, because a late answer could not be told from the next one.
 */
export interface ZdsServer {
  /**
   * Enrols a pod and resolves once the latest agent has acknowledged it. The pod stays enrolled when this rejects: the
   * next snapshot has it. The handle belongs to the server; without one, agents are told to keep what they have.
   * @throws CulvertError 'ZDS_NO_AGENT', 'ZDS_NACK' (the agent's words), 'ZDS_CONNECTION'
   */
  add(pod: PodInfo, netns: NetnsHandle | null): Promise<void>;
  /**
   * Puts a pod into the snapshots to come without telling an agent: for pods that were enrolled before this server
   * started. The handle belongs to the server.
   */
  seed(pod: PodInfo, netns: NetnsHandle | null): void;
  /** Forgets a pod and resolves when every agent has answered. Agents that fail to are dropped, not reported. */
  remove(uid: string): Promise<void>;
  /** Agents that have had their snapshot. */
  agents(): number;
  /** Resolves when an agent has had its snapshot, at once if there is one. */
  whenAgent(): Promise<void>;
  close(): void;
}

export interface ZdsServerOptions {
  /** Where the socket is made; a stale one is replaced. */
  readonly path: string;
  readonly log: Pick<Logger, 'info' | 'warn'>;
  readonly timers?: Timers;
  /** How long an agent may take for its hello and for each acknowledgement, in ms. */
  readonly answerMs?: number;
  /**
   * Until this resolves, agents that connect are left waiting: a snapshot that lacks pods would make them cut those off.
   * It must not reject.
   */
  readonly ready?: Promise<void>;
  /** An agent has had its snapshot, and may now be told what failed before. */
  readonly onAgent?: () => void;
}

export type ZdsServerErrorCode = 'ZDS_NO_AGENT' | 'ZDS_NACK' | 'ZDS_CONNECTION';

/** @throws the errno of listen when the path cannot be used */
export function startZdsServer(options: ZdsServerOptions): ZdsServer {
  const { path, log, timers = realTimers, answerMs = 5000, ready = Promise.resolve(), onAgent = () => {} } = options;
  const pods = new Map<string, { readonly pod: PodInfo; readonly netns: NetnsHandle | null }>();
  /** Those that said hello, in that order. What happens during a snapshot queues up behind it. */
  const agents: Agent[] = [];
  const informed = new Set<Agent>();
  const connections = new Set<Agent>();
  let waiters: (() => void)[] = [];
  const listener = listenSeqPacket(
    path,
    (connection) => void serve(createAgent(connection, timers, answerMs)),
    (error) => log.warn('zds', 'cannot accept an agent', { error }),
  );

  return {
    seed: put,
    async add(pod, netns) {
      put(pod, netns);
      const latest = agents.at(-1);
      if (latest === undefined) throw new CulvertError('ZDS_NO_AGENT', 'no agent is connected');
      if (netns !== null) await announce(latest, pod, netns);
    },
    async remove(uid) {
      pods.get(uid)?.netns?.close();
      pods.delete(uid);
      for (const agent of agents) agent.told.delete(uid);
      await Promise.allSettled(agents.map((agent) => agent.request({ kind: 'del', uid }, [])));
    },
    agents: () => informed.size,
    whenAgent: () => (informed.size > 0 ? Promise.resolve() : new Promise((resolve) => waiters.push(resolve))),
    close() {
      listener.close();
      for (const agent of connections) agent.close('the node agent is closing');
      for (const { netns } of pods.values()) netns?.close();
      pods.clear();
    },
  };

  function put(pod: PodInfo, netns: NetnsHandle | null): void {
    const before = pods.get(pod.uid);
    pods.set(pod.uid, { pod, netns });
    if (before?.netns !== netns) before?.netns?.close();
  }

  async function announce(agent: Agent, pod: PodInfo, netns: NetnsHandle): Promise<void> {
    // The request may have to queue, and the pod be removed meanwhile.
    const sent = netns.duplicate();
    try {
      agent.told.set(pod.uid, netns.key);
      await agent.request({ kind: 'add', uid: pod.uid, workload: pod }, [sent.fd]);
    } finally {
      sent.close();
    }
  }

  async function serve(agent: Agent): Promise<void> {
    connections.add(agent);
    agent.closed.then((reason) => {
      connections.delete(agent);
      informed.delete(agent);
      const index = agents.indexOf(agent);
      const wasLatest = index >= 0 && index === agents.length - 1;
      if (index >= 0) agents.splice(index, 1);
      log.info('zds', 'agent disconnected', { reason });
      const latest = agents.at(-1);
      if (wasLatest && latest !== undefined) void catchUp(latest);
    });
    try {
      const version = decodeHello(await agent.hello());
      log.info('zds', 'agent connected', { version });
      await ready;
      // One that has gone meanwhile would be taken for the latest for ever.
      if (!connections.has(agent)) return;
      agents.push(agent);
      await agent.exclusively((request) => sendSnapshot(agent, request));
    } catch (error) {
      agent.close(messageOf(error));
      return;
    }
    informed.add(agent);
    for (const resolve of waiters) resolve();
    waiters = [];
    onAgent();
  }

  /** An agent that is the latest again, because its successor has gone, learns what only the successor was told. */
  async function catchUp(agent: Agent): Promise<void> {
    for (const [uid, { pod, netns }] of pods) {
      if (netns === null || agent.told.get(uid) === netns.key) continue;
      try {
        await announce(agent, pod, netns);
      } catch (error) {
        log.warn('zds', 'agent cannot serve a pod', { uid, error: messageOf(error) });
      }
    }
  }

  async function sendSnapshot(agent: Agent, request: SendRequest): Promise<void> {
    // Pods that are enrolled meanwhile are visited as well.
    for (const [uid, { pod, netns }] of pods) {
      if (netns !== null) agent.told.set(uid, netns.key);
      try {
        await (netns === null
          ? request({ kind: 'keep', uid }, [])
          : request({ kind: 'add', uid, workload: pod }, [netns.fd]));
      } catch (error) {
        // One pod that cannot be started is no reason to withhold the others.
        if (!(error instanceof CulvertError) || error.code !== 'ZDS_NACK') throw error;
        log.warn('zds', 'agent cannot serve a pod', { uid, error: error.message });
      }
    }
    await request({ kind: 'snapshot-sent' }, []);
  }
}

/** @throws CulvertError 'ZDS_NACK', 'ZDS_CONNECTION' */
type SendRequest = (request: WorkloadRequest, descriptors: readonly number[]) => Promise<void>;

/** One connected agent: requests queue up, each waits for the answer of the one before. */
interface Agent {
  /** Pods it was told about, with the keys of their namespaces. */
  readonly told: Map<string, string>;
  hello(): Promise<Uint8Array>;
  readonly request: SendRequest;
  /** Runs several requests with nothing in between. */
  exclusively(task: (request: SendRequest) => Promise<void>): Promise<void>;
  close(reason: string): void;
  /** Resolves with the reason. */
  readonly closed: Promise<string>;
}

function createAgent(connection: SeqPacketConnection, timers: Timers, answerMs: number): Agent {
  const closed = Promise.withResolvers<string>();
  let gone: string | null = null;
  /** Settled by the next packet, the end of the connection, or the clock. */
  let expecting: PromiseWithResolvers<Uint8Array> | null = null;
  let queue: Promise<unknown> = Promise.resolve();
  const hello = expect('a hello');
  connection.start(receive, (code) => close(code === null ? 'closed by the agent' : `lost: ${code}`));

  return {
    told: new Map(),
    hello: () => hello,
    request: (request, descriptors) => exclusively((send) => send(request, descriptors)),
    exclusively,
    close,
    closed: closed.promise,
  };

  function exclusively(task: (request: SendRequest) => Promise<void>): Promise<void> {
    const done = queue.then(() => task(exchange));
    queue = done.catch(() => {});
    return done;
  }

  async function exchange(request: WorkloadRequest, descriptors: readonly number[]): Promise<void> {
    if (gone !== null) throw connectionError(gone);
    const answer = expect(`an acknowledgement of ${request.kind}`);
    try {
      connection.send(encodeRequest(request), descriptors);
    } catch (error) {
      close(messageOf(error));
    }
    let text: string;
    try {
      text = decodeResponse(await answer);
    } catch (error) {
      close(messageOf(error));
      throw error;
    }
    if (text !== '') throw new CulvertError('ZDS_NACK', text);
  }

  function expect(what: string): Promise<Uint8Array> {
    const pending = Promise.withResolvers<Uint8Array>();
    expecting = pending;
    const cancel = timers.after(answerMs, () => close(`no ${what} within ${answerMs} ms`));
    // The rejection is the caller's; this branch only stops the clock.
    pending.promise.then(cancel, cancel);
    return pending.promise;
  }

  function receive(packet: Packet): void {
    if (packet.kind === 'whole') closeDescriptors(packet.descriptors);
    const pending = expecting;
    expecting = null;
    if (packet.kind === 'truncated') close('received a truncated message');
    else if (pending === null) close('received an unexpected message');
    else pending.resolve(packet.payload);
    if (gone !== null) pending?.reject(connectionError(gone));
  }

  function close(reason: string): void {
    if (gone !== null) return;
    gone = reason;
    connection.close();
    expecting?.reject(connectionError(reason));
    expecting = null;
    closed.resolve(reason);
  }
}

function connectionError(reason: string): CulvertError<ZdsServerErrorCode> {
  return new CulvertError('ZDS_CONNECTION', `connection to the agent: ${reason}`);
}
