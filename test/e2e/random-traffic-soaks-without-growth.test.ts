/**
 * Connections that open, stall, end, close and break at random, through both threads of an agent, as fast as it goes. Every
 * byte is checked, what both ends were told must be one story, and nothing may be left of it.
 *
 * CULVERT_SOAK=long takes 30 minutes and looks at memory as well; a number takes as many seconds. With CULVERT_SEED the
 * connections are those of an earlier run.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ChannelLoop } from '../../native/channel.ts';
import { listenTcp } from '../../native/netns.ts';
import { Doorman } from '../native/stress/doorman.ts';
import { Ledger, type Seen } from '../native/stress/record.ts';
import { fateOf, generator, type Script } from '../native/stress/script.ts';
import { type Stage, Talker } from '../native/stress/talker.ts';
import { meshNetwork, noMoreThan, startAgent, type TestAgent, workload } from '../support/mesh.ts';
import type { Pod } from '../support/pods.ts';
import { watchResidentMemory } from '../support/resident-memory.ts';
import { total } from '../support/samples.ts';
import { plainListener } from '../support/tcp.ts';

const { CULVERT_SOAK: asked, CULVERT_SEED: seed = String(Date.now() % 1_000_000) } = process.env;
const SECONDS = asked === undefined ? 3 : asked === 'long' ? 1800 : Number(asked);
/** From here on it is long enough to tell growth from warming up. */
const MEMORY_SECONDS = 240;
const AT_ONCE = 60;
const PORT = 9000;
/** Without a single connection that ends in this time something is stuck. */
const PATIENCE_MS = 30_000;
const MEGABYTE = 1024 * 1024;

test(`${SECONDS} s of random traffic`, { timeout: (SECONDS + 120) * 1000 }, async (t) => {
  t.diagnostic(`CULVERT_SEED=${seed}`);
  const network = await meshNetwork(t);
  const client = await network.addPod('client');
  const server = await network.addPod('server');
  const outside = await network.addPod('outside');
  const agent = await startAgent({
    network,
    mesh: { workloads: [workload(client), workload(server), workload(outside, { protocol: 'TCP' })] },
    env: {
      // Several tunnels at a time, and new ones all the time.
      POOL_MAX_STREAMS_PER_CONNECTION: '20',
      POOL_UNUSED_RELEASE_TIMEOUT: '500ms',
      CULVERT_TUNNEL_MAX_AGE: '15s',
    },
  });
  for (const pod of [client, server]) await agent.enrol(pod);
  const traffic = new Traffic([client, client, client, outside], server);
  t.after(() => traffic.stop());

  await traffic.run(0.5);
  await settled(agent, traffic);
  const descriptorsBefore = agent.descriptors();

  const memory = watchResidentMemory(agent.child.pid!);
  const progress = setInterval(() => {
    const descriptors = [...agent.descriptors()].map(([kind, count]) => `${count} ${kind}`).join(', ');
    t.diagnostic(`${traffic.ledger.judged} connections, ${memory.samples.at(-1)!.toFixed(1)} MiB, ${descriptors}`);
  }, 60_000);
  await traffic.run(SECONDS).finally(() => {
    clearInterval(progress);
    memory.stop();
  });
  await settled(agent, traffic);

  const { left, errors, judged } = traffic.ledger;
  const unmet = traffic.ledger.judgeUnmet();
  t.diagnostic(JSON.stringify({ judged, unmet, left, errors, megabytes: Math.round(traffic.received / MEGABYTE) }));
  await agent.until('rid of descriptors', async () => agent.descriptors(), noMoreThan(descriptorsBefore));
  const samples = await agent.metrics();
  assert.equal(total(samples, 'culvert_streams_open'), 0);
  for (const reporter of ['source', 'destination']) {
    const opened = total(samples, 'istio_tcp_connections_opened_total', { reporter });
    assert.equal(opened, total(samples, 'istio_tcp_connections_closed_total', { reporter }), reporter);
  }
  assert.doesNotMatch(agent.output(), /error in the agent|protocol error/i);
  // The test means something only if all of it happened.
  for (const [how, count] of Object.entries(left)) assert.ok(count > judged / 20, `${how}: ${count} of ${judged}`);
  if (SECONDS < MEMORY_SECONDS) return;
  const quarters = memory.quarters();
  const growth = `${memory.slope().toFixed(2)} MiB/h; quarters: ${quarters.map((mean) => mean.toFixed(1)).join(', ')} MiB`;
  t.diagnostic(growth);
  assert.ok(quarters[3]! < quarters[1]! * 1.05 + 2, growth);
});

/** Everything of a connection follows from its number. */
function scriptOf(id: number): Script {
  const random = generator(id);
  const size = () => Math.floor(random() ** 8 * 2_000_000);
  return {
    id,
    tls: false,
    tiny: false,
    nodeClient: false,
    mode: random() < 0.25 ? 'echo' : 'direct',
    client: { bytes: size(), fate: fateOf(random, 'client') },
    server: { bytes: size(), fate: fateOf(random, 'server') },
  };
}

/** Both ends of all connections. */
class Traffic implements Stage {
  readonly ledger = new Ledger(scriptOf);
  readonly loop: ChannelLoop;
  received = 0;
  readonly #from: readonly Pod[];
  readonly #to: Pod;
  readonly #random = generator(Number(seed));
  readonly #open = new Set<Seen>();
  readonly #failure = Promise.withResolvers<never>();
  #next = Number(seed) * 1000;
  #until = 0;
  #progress = 0;
  #done = Promise.withResolvers<void>();

  constructor(from: readonly Pod[], to: Pod) {
    this.#from = from;
    this.#to = to;
    this.#failure.promise.catch(() => {});
    this.loop = new ChannelLoop((error) => this.#failure.reject(error));
    const { fd } = listenTcp(to.netns.fd, to.ipv4, PORT, { ...plainListener, reusePort: false, backlog: 4096 });
    this.loop.listen(fd, false, {
      accepted: ({ channel }) => {
        new Doorman(this.loop, channel, false, ({ id }) => this.#talker(scriptOf(id), 'server'));
      },
      failed: (error) => this.#failure.reject(error),
    });
  }

  /** Resolves when all connections that were begun in this time have ended on both sides. */
  async run(seconds: number): Promise<void> {
    this.#until = performance.now() + seconds * 1000;
    this.#progress = performance.now();
    this.#done = Promise.withResolvers();
    const watch = setInterval(() => {
      if (performance.now() - this.#progress < PATIENCE_MS) return;
      const scripts = [...this.#open].slice(0, 3).map((seen) => ({ seen, script: scriptOf(seen.id) }));
      this.#failure.reject(new Error(`stuck: ${JSON.stringify(scripts)}`));
    }, 1000);
    this.#connectMore();
    await Promise.race([this.#done.promise, this.#failure.promise]).finally(() => clearInterval(watch));
  }

  left(seen: Seen): void {
    this.#progress = performance.now();
    this.#open.delete(seen);
    this.received += seen.received;
    try {
      this.ledger.take(seen);
    } catch (error) {
      this.#failure.reject(error);
    }
    setImmediate(() => this.#connectMore());
  }

  elsewhere(work: () => void): void {
    const dice = this.#random();
    if (dice < 0.5) setImmediate(work);
    else if (dice < 0.98) setTimeout(work, this.#random() * 5);
    // Long enough for every buffer on the way to fill.
    else setTimeout(work, this.#random() * 1000);
  }

  stop(): void {
    this.loop.stop();
  }

  #connectMore(): void {
    const over = performance.now() > this.#until;
    if (over && this.#open.size === 0 && this.loop.size === 0) this.#done.resolve();
    // A doorman's end is told to nobody.
    else if (over && this.#open.size === 0) setTimeout(() => this.#connectMore(), 10);
    // Servers count as well.
    while (!over && this.#open.size < 2 * AT_ONCE) this.#connect();
  }

  #connect(): void {
    const pod = this.#from[Math.floor(this.#random() * this.#from.length)]!;
    const talker = this.#talker(scriptOf(this.#next++), 'client');
    talker.channel = this.loop.connect(pod.netns.fd, this.#to.ipv4, PORT, null, talker);
    talker.reached({ at: 'connecting' });
  }

  #talker(script: Script, role: 'client' | 'server'): Talker {
    const talker = new Talker(this, script, role);
    this.#open.add(talker.seen);
    return talker;
  }
}

/** Tunnels go by themselves when they are unused for a while. */
function settled(agent: TestAgent, traffic: Traffic): Promise<unknown> {
  return agent.until(
    'rid of tunnels and channels',
    async () => [traffic.loop.size, total(await agent.metrics(), 'culvert_tunnels_open')],
    ([channels, tunnels]) => channels === 0 && tunnels === 0,
  );
}
