import assert from 'node:assert/strict';
import { readSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { bindUdp, closeFd, listenTcp } from '../../native/netns.ts';
import { chooseRulesBackend } from '../../src/cni/rules/backend.ts';
import { defaultPodRules, type PodRules } from '../../src/cni/rules/pod-rules.ts';
import { runChecked } from '../../src/netns/run.ts';
import { PATIENCE_MS } from '../support/patience.ts';
import { type Pod, type PodNetwork, podNetwork } from '../support/pods.ts';
import { agentListener, openListeners, plainListener, whoAccepts } from '../support/tcp.ts';

const AGENT = {
  outbound: { port: 15001, options: agentListener },
  inboundPlaintext: { port: 15006, options: agentListener },
  inboundHbone: { port: 15008, options: agentListener },
  dns: { port: 15053, options: agentListener },
  application: { port: 8080, options: plainListener },
};

interface Case {
  readonly name: string;
  readonly rules?: Partial<PodRules>;
  /** Who connects: the pod with the rules, another pod, or the node. */
  readonly from: 'captured' | 'other' | 'node';
  readonly to: { readonly host: 'captured' | 'other' | 'loopback'; readonly port: number };
  readonly source?: 'other' | 'probe';
  readonly marked?: boolean;
  readonly lands: keyof typeof AGENT | 'other' | 'none';
  /** What the listener must know of where the client wanted to go; by default the address it dialled. */
  readonly peer?: 'other' | 'probe';
}

const cases: Case[] = [
  {
    name: 'a connection that leaves the pod goes to the outbound listener',
    from: 'captured',
    to: { host: 'other', port: 80 },
    lands: 'outbound',
  },
  { name: 'so does one to an HBONE port', from: 'captured', to: { host: 'other', port: 15008 }, lands: 'outbound' },
  {
    name: 'a marked connection leaves the pod',
    from: 'captured',
    to: { host: 'other', port: 80 },
    marked: true,
    lands: 'other',
  },
  {
    name: 'a pod that calls its own address is left alone',
    from: 'captured',
    to: { host: 'captured', port: 8080 },
    lands: 'application',
  },
  {
    name: 'a pod that calls loopback is left alone',
    from: 'captured',
    to: { host: 'loopback', port: 8080 },
    lands: 'application',
  },
  {
    name: 'a connection that arrives goes to the plaintext listener',
    from: 'other',
    to: { host: 'captured', port: 8080 },
    lands: 'inboundPlaintext',
    peer: 'other',
  },
  {
    name: 'one that arrives for HBONE goes straight to that listener',
    from: 'other',
    to: { host: 'captured', port: 15008 },
    lands: 'inboundHbone',
    peer: 'other',
  },
  {
    name: 'one that arrives for the outbound listener is not taken by it',
    from: 'other',
    to: { host: 'captured', port: 15001 },
    lands: 'inboundPlaintext',
  },
  {
    name: 'a probe of the node reaches the application',
    from: 'node',
    source: 'probe',
    to: { host: 'captured', port: 8080 },
    lands: 'application',
    peer: 'probe',
  },
  {
    name: 'the agent reaches the application under the address of the client',
    from: 'captured',
    source: 'other',
    marked: true,
    to: { host: 'captured', port: 8080 },
    lands: 'application',
    peer: 'other',
  },
  {
    name: 'DNS over TCP passes as any other connection without DNS capture',
    from: 'captured',
    to: { host: 'other', port: 53 },
    lands: 'outbound',
  },
  {
    name: 'DNS over TCP goes to the DNS proxy with DNS capture',
    rules: { dnsCapture: true },
    from: 'captured',
    to: { host: 'other', port: 53 },
    lands: 'dns',
  },
  {
    name: 'connections to an ingress pod are left alone',
    rules: { ingress: true },
    from: 'other',
    to: { host: 'captured', port: 8080 },
    lands: 'application',
    peer: 'other',
  },
  {
    name: 'connections from an ingress pod are captured',
    rules: { ingress: true },
    from: 'captured',
    to: { host: 'other', port: 80 },
    lands: 'outbound',
  },
  {
    name: 'what comes from a virtual interface counts as leaving the pod',
    rules: { virtualInterfaces: ['eth0'] },
    from: 'other',
    to: { host: 'captured', port: 8080 },
    lands: 'outbound',
  },
];

for (const backendName of ['nftables', 'iptables'] as const) {
  test(`capture rules set by ${backendName}`, async (t) => {
    const backend = await chooseRulesBackend(backendName);
    const network = await podNetwork(t);
    const captured = await network.addPod('captured');
    const other = await network.addPod('other');
    await addProbeAddress(network, captured);
    const listeners = openListeners(captured.netns.fd, AGENT);
    const outside = ['80', '53', '15008'].map(
      (port) => listenTcp(other.netns.fd, '::', Number(port), plainListener).fd,
    );
    t.after(() => {
      listeners.close();
      for (const fd of outside) closeFd(fd);
    });
    let inForce = '';

    for (const family of ['ipv4', 'ipv6'] as const) {
      const address = (host: 'captured' | 'other' | 'loopback' | 'probe'): string => {
        if (host === 'loopback') return family === 'ipv4' ? '127.0.0.1' : '::1';
        if (host === 'probe') return family === 'ipv4' ? defaultPodRules.probeIpv4 : defaultPodRules.probeIpv6;
        return (host === 'captured' ? captured : other)[family]!;
      };
      for (const { name, rules = {}, from, to, source, marked = false, lands, peer } of cases) {
        await t.test(`${family}: ${name}`, async () => {
          const wanted = JSON.stringify(rules);
          if (wanted !== inForce) await backend.apply(captured.netns.fd, { ...defaultPodRules, ...rules });
          inForce = wanted;
          const result = await whoAccepts(
            { ...listeners.fds, other: outside[0]!, otherDns: outside[1]!, otherHbone: outside[2]! },
            {
              netns: from === 'node' ? network.node.fd : (from === 'captured' ? captured : other).netns.fd,
              ip: address(to.host),
              port: to.port,
              ...(source === undefined ? {} : { source: address(source) }),
              mark: marked,
            },
          );
          assert.equal(result.listener, lands);
          assert.deepEqual(result.accepted?.destination, { ip: address(to.host), port: to.port });
          if (peer !== undefined) assert.equal(result.accepted?.peer.ip, address(peer));
        });
      }
    }
  });
}

for (const backendName of ['nftables', 'iptables'] as const) {
  test(`DNS queries over UDP reach the DNS proxy when ${backendName} captures them`, async (t) => {
    const backend = await chooseRulesBackend(backendName);
    const network = await podNetwork(t);
    const pod = await network.addPod('pod');
    const other = await network.addPod('other');
    const proxy = {
      ipv4: bindUdp(pod.netns.fd, '127.0.0.1', 15053, 1337, true),
      ipv6: bindUdp(pod.netns.fd, '::1', 15053, 1337, true),
    };
    t.after(() => Object.values(proxy).map(closeFd));
    await backend.apply(pod.netns.fd, { ...defaultPodRules, dnsCapture: true });
    for (const family of ['ipv4', 'ipv6'] as const) {
      await pod.run(['bash', '-c', `printf 'query over ${family}' > /dev/udp/${other[family]}/53`]);
      assert.equal(await datagram(proxy[family]), `query over ${family}`);
    }
  });
}

test('a pod whose IPv6 is switched off is captured, and freed', async (t) => {
  const backend = await chooseRulesBackend('nftables');
  const network = await podNetwork(t);
  const pod = await network.addPod('pod');
  for (const name of ['all', 'lo']) {
    await pod.run(['bash', '-c', `echo 1 > /proc/sys/net/ipv6/conf/${name}/disable_ipv6`]);
  }
  const rulesOf = async (family: string) => (await pod.run(['ip', family, 'rule', 'show'])).stdout;
  // Also when it is done already.
  for (let round = 0; round < 2; round++) await backend.apply(pod.netns.fd, { ...defaultPodRules, ipv6: true });
  assert.match(await rulesOf('-4'), /^32764:/m);
  assert.match(await rulesOf('-6'), /^32764:/m);
  await backend.remove(pod.netns.fd);
  assert.doesNotMatch(await rulesOf('-4'), /^32764:/m);
  assert.doesNotMatch(await rulesOf('-6'), /^32764:/m);
});

async function datagram(fd: number): Promise<string> {
  const buffer = Buffer.alloc(512);
  for (const end = performance.now() + PATIENCE_MS; performance.now() < end; await delay(2)) {
    try {
      return buffer.toString('utf8', 0, readSync(fd, buffer));
    } catch {
      // EAGAIN: it is still on its way.
    }
  }
  return 'nothing';
}

/** Probes come from addresses that the node has made up for them. */
async function addProbeAddress(network: PodNetwork, pod: Pod): Promise<void> {
  const { probeIpv4, probeIpv6 } = defaultPodRules;
  const commands = [
    `address add ${probeIpv4}/32 dev br0`,
    ...(pod.ipv6 === null ? [] : [`address add ${probeIpv6}/128 dev br0 nodad`]),
  ];
  await runChecked(['ip', '-batch', '-'], { netns: network.node.fd, input: `${commands.join('\n')}\n` });
}
