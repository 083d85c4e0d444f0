import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { jump } from '../../src/cni/nftables/expressions.ts';
import { replaceTables } from '../../src/cni/nftables/transaction.ts';
import { chooseRulesBackend } from '../../src/cni/rules/backend.ts';
import { defaultPodRules, type PodRules } from '../../src/cni/rules/pod-rules.ts';
import { type Pod, podNetwork } from '../support/pods.ts';

/** What istio's node agent made of a pod with DNS capture, as iptables-save printed it; counters zeroed, dates left out. */
const golden = (name: string) => readFileSync(new URL(`fixtures/${name}.txt`, import.meta.url), 'utf8').trim();

const withDns: PodRules = { ...defaultPodRules, dnsCapture: true };

async function printed(pod: Pod, ...argv: string[]): Promise<string> {
  const { stdout, stderr, status } = await pod.run(argv);
  assert.equal(status, 0, stderr);
  return stdout
    .split('\n')
    .filter((line) => !line.startsWith('#') && line !== '')
    .map((line) => line.replace(/\[\d+:\d+\]/, '[0:0]').trim())
    .join('\n');
}

/** Tables come in an order of their own. */
function byTable(saved: string): string[] {
  return saved
    .split(/^(?=\*)/m)
    .map((table) => table.trim())
    .sort();
}

test('iptables-save shows what the incumbent made', async (t) => {
  const network = await podNetwork(t);
  const pod = await network.addPod('pod');
  const backend = await chooseRulesBackend('iptables');
  await backend.apply(pod.netns.fd, withDns);
  assert.deepEqual(byTable(await printed(pod, 'iptables-save')), byTable(golden('pod-iptables-save')));
  assert.deepEqual(byTable(await printed(pod, 'ip6tables-save')), byTable(golden('pod-ip6tables-save')));
});

test('nft shows what the incumbent made, but for marking fewer packets', async (t) => {
  const network = await podNetwork(t);
  const [pod, incumbents] = [await network.addPod('pod'), await network.addPod('incumbents')];
  const rules = fileURLToPath(new URL('fixtures/nftables.nft', import.meta.url));
  const listed = (of: Pod, ...chain: string[]) =>
    printed(of, 'nft', 'list', ...(chain.length > 0 ? chain : ['ruleset']));
  await printed(incumbents, 'nft', '-f', rules);
  const backend = await chooseRulesBackend('nftables');
  await backend.apply(pod.netns.fd, { ...withDns, virtualInterfaces: ['tap0'] });
  const restores = 'counter packets 0 bytes 0 meta mark set ct mark';
  const incumbent = `ct mark & 0x00000fff == 0x00000111 ${restores}`;
  const listing = await listed(incumbents);
  assert.ok(listing.includes(incumbent), listing);
  assert.equal(
    await listed(pod),
    listing.replace(incumbent, `ct direction reply meta mark & 0x00000fff != 0x00000539 ${incumbent}`),
  );
});

test('nft: what is refused changes nothing, and is named', async (t) => {
  const network = await podNetwork(t);
  const pod = await network.addPod('pod');
  const chains = (target: string) => [{ name: 'mine', hook: null, rules: [jump(target)] }];
  await replaceTables(pod.netns.fd, [], [{ name: 'kept', chains: [] }]);
  const before = await printed(pod, 'nft', 'list', 'ruleset');
  await assert.rejects(replaceTables(pod.netns.fd, ['kept'], [{ name: 'new', chains: chains('absent') }]), {
    code: 'NFTABLES_REFUSED',
    message: /the kernel refused a rule: .*ENOENT/,
  });
  assert.equal(await printed(pod, 'nft', 'list', 'ruleset'), before);
  // One that is there and was not to be removed would have its own rules, too.
  await assert.rejects(replaceTables(pod.netns.fd, [], [{ name: 'kept', chains: [] }]), {
    message: /a table: .*EEXIST/,
  });
});

for (const name of ['nftables', 'iptables'] as const) {
  test(`${name}: answers to the application's clients are routed back to the agent`, async (t) => {
    const network = await podNetwork(t);
    const pod = await network.addPod('pod');
    const backend = await chooseRulesBackend(name);
    await backend.apply(pod.netns.fd, defaultPodRules);
    assert.match(await printed(pod, 'ip', 'rule'), /^32764:\tfrom all fwmark 0x111\/0xfff lookup 100$/m);
    assert.match(await printed(pod, 'ip', '-6', 'rule'), /^32764:\tfrom all fwmark 0x111\/0xfff lookup 100$/m);
    assert.equal(await printed(pod, 'ip', 'route', 'show', 'table', '100'), 'local default dev lo scope host');
    assert.match(await printed(pod, 'ip', '-6', 'route', 'show', 'table', '100'), /^local default dev lo /);
  });

  test(`${name}: applying twice changes nothing, and removing leaves nothing`, async (t) => {
    const network = await podNetwork(t);
    const pod = await network.addPod('pod');
    const backend = await chooseRulesBackend(name);
    const ruleset = name === 'nftables' ? ['nft', 'list', 'ruleset'] : ['iptables-save'];
    const state = async () => [
      await printed(pod, ...ruleset),
      await printed(pod, 'ip', 'rule'),
      await printed(pod, 'ip', '-6', 'rule'),
      await printed(pod, 'ip', 'route', 'show', 'table', 'all'),
    ];
    const untouched = await state();
    await backend.apply(pod.netns.fd, withDns);
    const applied = await state();
    await backend.apply(pod.netns.fd, withDns);
    assert.deepEqual(await state(), applied);
    await backend.apply(pod.netns.fd, defaultPodRules);
    assert.doesNotMatch((await state())[0]!, /15053/, 'DNS capture switched off');
    await backend.remove(pod.netns.fd);
    await backend.remove(pod.netns.fd);
    const [left, ...routing] = await state();
    assert.doesNotMatch(left!, /istio/i);
    assert.deepEqual(routing, untouched.slice(1));
  });

  test(`${name}: IPv6 is left alone when it is off`, async (t) => {
    const network = await podNetwork(t);
    const pod = await network.addPod('pod');
    const backend = await chooseRulesBackend(name);
    await backend.apply(pod.netns.fd, { ...defaultPodRules, ipv6: false });
    assert.doesNotMatch(await printed(pod, 'nft', 'list', 'ruleset'), /ip6|::1/);
    if (name === 'iptables') assert.doesNotMatch(await printed(pod, 'ip6tables-save'), /ISTIO/);
    assert.doesNotMatch(await printed(pod, 'ip', '-6', 'rule'), /32764/);
  });
}

test('iptables: rules that were damaged, doubled or of an older version are put right', async (t) => {
  const network = await podNetwork(t);
  const pod = await network.addPod('pod');
  const backend = await chooseRulesBackend('iptables');
  await backend.apply(pod.netns.fd, withDns);
  const right = await printed(pod, 'iptables-save');
  const damages = [
    ['-t', 'nat', '-F', 'ISTIO_OUTPUT'],
    ['-t', 'nat', '-I', 'ISTIO_OUTPUT', '-p', 'tcp', '--dport', '22', '-j', 'RETURN'],
    ['-t', 'nat', '-A', 'OUTPUT', '-j', 'ISTIO_OUTPUT'],
    ['-t', 'mangle', '-D', 'PREROUTING', '-j', 'ISTIO_PRERT'],
    ['-t', 'nat', '-N', 'ISTIO_OLD'],
    ['-t', 'filter', '-N', 'ISTIO_LOCK'],
  ];
  for (const damage of damages) {
    assert.equal((await pod.run(['iptables', ...damage])).status, 0, damage.join(' '));
    assert.notEqual(await printed(pod, 'iptables-save'), right, damage.join(' '));
    await backend.apply(pod.netns.fd, withDns);
    // The table that was only made for the damage stays, empty.
    assert.equal(
      (await printed(pod, 'iptables-save')).replace(/\n?\*filter\n(:[A-Z]+ ACCEPT \[0:0\]\n)+COMMIT/, ''),
      right,
      damage.join(' '),
    );
  }
});

test("iptables: other people's rules stay as they are", async (t) => {
  const network = await podNetwork(t);
  const pod = await network.addPod('pod');
  const backend = await chooseRulesBackend('iptables');
  await pod.run(['iptables', '-t', 'nat', '-A', 'OUTPUT', '-p', 'tcp', '--dport', '22', '-j', 'ACCEPT']);
  await pod.run(['iptables', '-t', 'nat', '-N', 'MINE']);
  const before = await printed(pod, 'iptables-save', '-t', 'nat');
  await backend.apply(pod.netns.fd, withDns);
  assert.match(await printed(pod, 'iptables-save'), /--dport 22 -j ACCEPT/);
  await backend.remove(pod.netns.fd);
  assert.equal(await printed(pod, 'iptables-save', '-t', 'nat'), before);
});

test('a name that is no interface name never reaches a rule', async (t) => {
  const network = await podNetwork(t);
  const pod = await network.addPod('pod');
  for (const name of ['nftables', 'iptables'] as const) {
    const backend = await chooseRulesBackend(name);
    for (const bad of ['', 'a b', 'x\naccept', '"', '-j', 'sixteen-letters-', 'tap0; flush ruleset']) {
      await assert.rejects(backend.apply(pod.netns.fd, { ...defaultPodRules, virtualInterfaces: [bad] }), {
        code: 'RULES_INVALID',
      });
    }
  }
});

test('nftables is chosen on a node that has tables of these names', async (t) => {
  const network = await podNetwork(t);
  const [pod, names] = [
    await network.addPod('pod'),
    ['istio-ambient-nat', 'istio-ambient-mangle', 'istio-ambient-raw'],
  ];
  for (const name of names) await printed(pod, 'nft', 'add', 'table', 'inet', name);
  const module = JSON.stringify(new URL('../../src/cni/rules/backend.ts', import.meta.url).href);
  const script = `const { chooseRulesBackend } = await import(${module}); console.log((await chooseRulesBackend()).name);`;
  assert.equal(await printed(pod, process.execPath, '--input-type=module', '-e', script), 'nftables');
  assert.equal((await printed(pod, 'nft', 'list', 'tables')).split('\n').length, 3, 'nothing was made');
});

test('what the kernel refuses is an error that says so', async () => {
  const backend = await chooseRulesBackend();
  // Not a namespace.
  await assert.rejects(backend.apply(0, defaultPodRules), { code: 'RULES_FAILED', message: /capture rules of a pod/ });
});
