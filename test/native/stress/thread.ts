/** Not a test: one of the threads of the stress test. It listens, and connects to its own and the others' listeners. */

import { parentPort, workerData } from 'node:worker_threads';
import {
  type Accepted,
  type ChannelHandler,
  type ChannelId,
  ChannelLoop,
  NO_HANDLER,
} from '../../../native/channel.ts';
import { type KeepAlive, OWN_NETNS } from '../../../native/netns.ts';
import { PlainRelay } from '../../../src/relay/plain-relay.ts';
import type { TestMaterial } from '../authority.ts';
import { SERVER_ID, TRUST_DOMAIN } from '../secure-side.ts';
import { LOCAL } from '../side.ts';
import { Doorman } from './doorman.ts';
import { nodeTalker } from './node-talker.ts';
import type { Seen } from './record.ts';
import { generator, greeting, scriptOf } from './script.ts';
import { type Stage, Talker } from './talker.ts';

export interface Ports {
  readonly plain: number;
  readonly tls: number;
  readonly tinyPlain: number;
  readonly tinyTls: number;
}

export interface Order {
  /** Keep-alive of the connections that it makes. */
  readonly probes: KeepAlive;
  readonly netns: number;
  /** Descriptors of this thread's listening sockets. */
  readonly listening: Ports;
  /** Where the listeners of all threads are. */
  readonly ports: readonly Ports[];
  readonly client: TestMaterial;
  readonly server: TestMaterial;
  /** Numbers of the connections to make. */
  readonly from: number;
  readonly to: number;
  readonly atOnce: number;
}

export type Report =
  | { readonly kind: 'seen'; readonly seen: readonly Seen[] }
  /** All of its own connections are gone on this side. */
  | { readonly kind: 'done' }
  | { readonly kind: 'progress'; readonly open: number; readonly waiting: string }
  /** No channel is open any more. */
  | { readonly kind: 'settled' }
  | { readonly kind: 'stopped'; readonly channels: number };

const order = workerData as Order;
const post = (report: Report) => parentPort!.postMessage(report);
const random = generator(order.from + 99);

const loop = new ChannelLoop((error) => {
  throw error;
});
loop.setStreamOptions({ mark: 0, keepalive: order.probes, userTimeoutMs: 0 });
const clientContext = loop.newTlsContext(order.client);
const serverContext = loop.newTlsContext(order.server);

let seen: Seen[] = [];
let next = order.from;
let open = 0;
const clients = new Set<Seen>();
const postponed: (() => void)[] = [];

/** Some of what was put off happens inside the events of others. */
function meddle(): void {
  if (postponed.length > 0 && random() < 0.3) postponed.shift()!();
}

const stage: Stage = {
  loop,
  left(end) {
    seen.push(end);
    if (end.role === 'client') {
      open--;
      clients.delete(end);
      setImmediate(connectMore);
    }
    if (seen.length >= 50 || (open === 0 && next === order.to)) {
      post({ kind: 'seen', seen });
      seen = [];
    }
  },
  elsewhere(work) {
    const dice = random();
    if (dice < 0.3) setImmediate(work);
    else if (dice < 0.5) queueMicrotask(work);
    else if (dice < 0.7) setTimeout(work, random() * 4);
    else {
      let done = false;
      const once = () => {
        if (done) return;
        done = true;
        work();
      };
      postponed.push(once);
      // In case that no other event comes.
      setTimeout(once, 5);
    }
  },
};

class MeddlingTalker extends Talker {
  override data(offset: number, length: number): number {
    // Before the bytes are looked at: whatever happens there must not touch them.
    meddle();
    return this.seen.left === null ? super.data(offset, length) : 0;
  }
  override drained(queued: number): void {
    meddle();
    if (this.seen.left === null) super.drained(queued);
  }
}

function connectMore(): void {
  while (open < order.atOnce && next < order.to) connectOne(next++);
  if (next === order.to && open === 0 && !reportedDone) {
    reportedDone = true;
    if (seen.length > 0) post({ kind: 'seen', seen });
    seen = [];
    post({ kind: 'done' });
  }
}
let reportedDone = false;

function connectOne(id: number): void {
  const script = scriptOf(id);
  const ports = order.ports[Math.floor(random() * order.ports.length)]!;
  open++;
  if (script.nodeClient) {
    clients.add(nodeTalker(stage, script, script.tls ? ports.tls : ports.plain, order.client));
    return;
  }
  const talker = new MeddlingTalker(stage, script, 'client');
  clients.add(talker.seen);
  const port = script.tiny ? (script.tls ? ports.tinyTls : ports.tinyPlain) : script.tls ? ports.tls : ports.plain;
  if (script.tls) {
    const open = talker.open.bind(talker);
    talker.connected = () => {
      loop.startTls(talker.channel, clientContext, 'client', [SERVER_ID], '');
      open();
    };
  }
  talker.channel = loop.connect(script.tiny ? order.netns : OWN_NETNS, LOCAL, port, null, talker);
  talker.reached({ at: 'connecting' });
}

function accept(channel: ChannelId, tls: boolean, tiny: boolean): void {
  new Doorman(loop, channel, tls, ({ id, passedOn }) => {
    if (!passedOn) return new MeddlingTalker(stage, scriptOf(id), 'server');
    // Relays are plain: everything behind the greeting is still in the socket.
    new Passage(channel, id, tiny);
    return null;
  });
  if (tls) loop.startTls(channel, serverContext, 'server', [], TRUST_DOMAIN);
}

/** Passes a connection on to a server of some thread. */
class Passage implements ChannelHandler {
  readonly #client: ChannelId;
  readonly #server: ChannelId;

  constructor(client: ChannelId, id: number, tiny: boolean) {
    const ports = order.ports[Math.floor(random() * order.ports.length)]!;
    this.#client = client;
    loop.adopt(client, { ...NO_HANDLER, failed: () => this.failed() });
    this.#server = loop.connect(
      tiny ? order.netns : OWN_NETNS,
      LOCAL,
      tiny ? ports.tinyPlain : ports.plain,
      null,
      this,
    );
    const first = greeting(id, false);
    loop.memory.set(first, 0);
    loop.write(this.#server, 0, first.length);
  }

  connected(): void {
    new PlainRelay(loop, this.#client, this.#server, { received() {}, sent() {}, relayEnded() {} }).start();
  }

  failed(): void {
    loop.reset(this.#client);
    loop.reset(this.#server);
  }

  data(): number {
    return 0;
  }
  ended(): void {}
  secured(): void {}
  drained(): void {}
  closed(): void {}
}

function listen(fd: number, tls: boolean, tiny: boolean): void {
  loop.listen(fd, false, {
    accepted: ({ channel }: Accepted) => accept(channel, tls, tiny),
    failed(error) {
      throw error;
    },
  });
}

listen(order.listening.plain, false, false);
listen(order.listening.tls, true, false);
listen(order.listening.tinyPlain, false, true);
listen(order.listening.tinyTls, true, true);

const watch = setInterval(() => {
  post({ kind: 'progress', open: loop.size, waiting: JSON.stringify([...clients].slice(0, 3)) });
}, 5000);

function settle(): void {
  if (loop.size > 0) {
    setTimeout(settle, 10);
    return;
  }
  if (seen.length > 0) post({ kind: 'seen', seen });
  seen = [];
  post({ kind: 'settled' });
}

function stop(): void {
  clearInterval(watch);
  post({ kind: 'stopped', channels: loop.size });
  loop.stop();
  parentPort!.close();
}

const commands = { start: connectMore, settle, stop };
export type Command = keyof typeof commands;
parentPort!.on('message', (command: Command) => commands[command]());
