import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { createHostRules, type HostRulesOptions } from '../../src/cni/host/host-rules.ts';
import { chooseRulesBackend, type RulesBackend } from '../../src/cni/rules/backend.ts';
import { runChecked } from '../../src/netns/run.ts';
import { podNetwork } from '../support/pods.ts';

const PROBE = '169.254.7.127';

async function node(t: TestContext, backend: RulesBackend['name'], changes: Partial<HostRulesOptions> = {}) {
  const network = await podNetwork(t);
  const netns = network.node.fd;
  const rules = createHostRules({
    backend: await chooseRulesBackend(backend),
    netns,
    probeIpv4: PROBE,
    probeIpv6: 'fd16:9254:7127:1337:ffff:ffff:ffff:ffff',
    ipv6: true,
    kubeletUid: 0,
    ...changes,
  });
  const show = () =>
    backend === 'nftables'
      ? runChecked(['nft', 'list', 'ruleset'], { netns })
      : runChecked(['sh', '-c', 'iptables-nft-save -t nat; ip6tables-nft-save -t nat'], { netns });
  return { network, netns, rules, show };
}

for (const backend of ['nftables', 'iptables'] as const) {
  test(`${backend}: a probe of an enrolled pod comes from the address of probes, other connections do not`, async (t) => {
    const { network, netns, rules, show } = await node(t, backend);
    const [enrolled, other] = [await network.addPod('in'), await network.addPod('out')];
    await rules.set('u1', [enrolled.ipv4, ...(enrolled.ipv6 === null ? [] : [enrolled.ipv6])]);
    /** The address that a pod sees when the node connects to it. */
    const seenBy = async (pod: typeof enrolled) => {
      await runChecked(['ip', 'route', 'replace', `${PROBE}/32`, 'via', pod.ipv4.replace(/\d+$/, '1')], {
        netns: pod.netns.fd,
      });
      const script = `const s=require('net').createServer((c)=>{process.stdout.write(c.remoteAddress);c.destroy();s.close()});s.listen(8080,'0.0.0.0',()=>process.stderr.write('up'))`;
      const child = pod.start([process.execPath, '-e', script]);
      let seen = '';
      child.stdout!.setEncoding('utf8').on('data', (text: string) => {
        seen += text;
      });
      await new Promise((resolve) => child.stderr!.once('data', resolve));
      const ended = new Promise((resolve) => child.once('close', resolve));
      await runChecked([process.execPath, '-e', `require('net').connect(8080,'${pod.ipv4}').on('error',()=>{})`], {
        netns,
      });
      await ended;
      return seen;
    };
    assert.equal(await seenBy(enrolled), PROBE);
    assert.notEqual(await seenBy(other), PROBE);
    assert.match(await show(), /u1/);
    await rules.remove('u1');
    assert.doesNotMatch(await show(), /u1|ISTIO|istio/);
  });

  test(`${backend}: an address that has moved to another pod is that pod's`, async (t) => {
    const { rules, show } = await node(t, backend);
    await rules.set('old', ['10.0.0.1', 'fd00::1']);
    await rules.set('new', ['10.0.0.1']);
    await rules.remove('old');
    const left = await show();
    assert.match(left, /10\.0\.0\.1/);
    assert.match(left, /new/);
    assert.doesNotMatch(left, /old|fd00::1/);
    await rules.set('new', ['10.0.0.2']);
    assert.doesNotMatch(await show(), /10\.0\.0\.1\b/);
    await rules.close();
    assert.doesNotMatch(await show(), /ISTIO|istio/);
  });

  test(`${backend}: what an earlier node agent has set stays until it is known, and what nobody wants goes`, async (t) => {
    const { netns, rules, show } = await node(t, backend);
    await rules.set('kept', ['10.0.0.1']);
    await rules.set('stale', ['10.0.0.2']);
    const next = createHostRules({
      backend: await chooseRulesBackend(backend),
      ...{ netns, probeIpv4: PROBE, probeIpv6: 'fd16::1', ipv6: true, kubeletUid: 0 },
    });
    next.seed('kept', ['10.0.0.1']);
    await next.set('new', ['10.0.0.3']);
    assert.match(await show(), /kept/);
    assert.doesNotMatch(await show(), /stale/);
    await next.set('kept', ['10.0.0.1']);
    await next.sync();
    assert.match(await show(), /kept/);
  });
}

test('many changes at once end in what was wanted last', async (t) => {
  const { rules, show } = await node(t, 'nftables');
  await Promise.all(Array.from({ length: 40 }, (_, index) => rules.set(`u${index % 8}`, [`10.0.${index}.1`])));
  const text = await show();
  for (let index = 32; index < 40; index++) assert.ok(text.includes(`10.0.${index}.1`), text);
  assert.ok(!text.includes('10.0.31.1'));
});

test('a whole node of addresses is written, and again when somebody has removed the table', async (t) => {
  const { netns, rules, show } = await node(t, 'nftables');
  const addresses = (from: number, count: number) =>
    Array.from({ length: count }, (_, index) => `10.1.${(from + index) >> 8}.${(from + index) & 255}`);
  await rules.set('first', addresses(0, 1));
  await rules.set('many', addresses(1, 999));
  assert.equal((await show()).match(/10\.1\.\d+\.\d+ comment "(first|many)"/g)?.length, 1000);
  await runChecked(['nft', 'flush', 'ruleset'], { netns });
  await rules.set('last', ['10.2.0.1']);
  const text = await show();
  assert.equal(text.match(/10\.\d+\.\d+\.\d+ comment/g)?.length, 1001);
  assert.match(text, /snat ip to 169\.254\.7\.127/);
});

test('a failure is told, and the next attempt writes what is missing', async (t) => {
  const { rules, show } = await node(t, 'nftables', { probeIpv4: 'nonsense' });
  await assert.rejects(rules.set('u', ['10.0.0.1']), { code: 'HOST_RULES_FAILED' });
  await assert.rejects(rules.set('u', ['10.0.0.1']), { code: 'HOST_RULES_FAILED' }, 'not taken for done');
  assert.doesNotMatch(await show(), /istio/);
});
