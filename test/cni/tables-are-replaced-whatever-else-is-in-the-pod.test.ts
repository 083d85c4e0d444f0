import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NETLINK_NETFILTER, netlinkExchange } from '../../native/netlink.ts';
import { replaceTables, type Table } from '../../src/cni/nftables/transaction.ts';
import { type Pod, podNetwork } from '../support/pods.ts';
import { netlinkForger } from './support/netlink-forger.ts';

const NAMES = ['istio-ambient-nat', 'istio-ambient-mangle', 'istio-ambient-raw'];

function table(name: string, ...chains: string[]): Table {
  return { name, chains: chains.map((chain) => ({ name: chain, hook: null, rules: [] })) };
}

async function listed(pod: Pod, ...what: string[]): Promise<string[]> {
  const { stdout } = await pod.run(['nft', 'list', ...what]);
  return stdout.split('\n').filter((line) => line !== '');
}

test('those that are there are removed, those that are not are no error', async (t) => {
  const pod = await (await podNetwork(t)).addPod('pod');
  for (const present of [[], NAMES.slice(1, 2), NAMES.slice(0, 2), NAMES]) {
    await replaceTables(
      pod.netns.fd,
      [],
      present.map((name) => table(name, 'of-before')),
    );
    await replaceTables(pod.netns.fd, NAMES, [table(NAMES[0]!, 'new')]);
    assert.deepEqual(await listed(pod, 'tables'), [`table inet ${NAMES[0]}`]);
    assert.doesNotMatch((await listed(pod, 'ruleset')).join(), /of-before/);
    await replaceTables(pod.netns.fd, NAMES, []);
    assert.deepEqual(await listed(pod, 'tables'), []);
  }
});

test('a name that the kernel does not look for is an error, and nothing changes', async (t) => {
  const pod = await (await podNetwork(t)).addPod('pod');
  await replaceTables(pod.netns.fd, [], [table(NAMES[0]!)]);
  await assert.rejects(replaceTables(pod.netns.fd, [NAMES[0]!, 'x'.repeat(300)], []), {
    code: 'NFTABLES_REFUSED',
    message: /refused to look for a table: .*\(ERANGE\)/,
  });
  assert.deepEqual(await listed(pod, 'tables'), [`table inet ${NAMES[0]}`]);
});

test('among more tables than are read, those of the names are found', async (t) => {
  const pod = await (await podNetwork(t)).addPod('pod');
  const others = Array.from({ length: 5000 }, (_, index) => table(`${index}-`.padEnd(250, 'x')));
  const ours = NAMES.map((name) => table(name));
  const all = others.toSpliced(2500, 0, ...ours);
  // As many as fit into a message of somebody who is not root of the machine.
  for (let at = 0; at < all.length; at += 400) await replaceTables(pod.netns.fd, [], all.slice(at, at + 400));
  // nlmsghdr and nfgenmsg: a dump of the tables of the family inet.
  const dump = Buffer.from('14000000010a01030000000000000000' + '01000000', 'hex');
  await assert.rejects(netlinkExchange(pod.netns.fd, NETLINK_NETFILTER, dump), { code: 'EMSGSIZE' });
  await replaceTables(pod.netns.fd, NAMES, []);
  // Only what is not there can be made; nft would take seconds to list the rest.
  await replaceTables(pod.netns.fd, [], ours);
  await assert.rejects(replaceTables(pod.netns.fd, [], others.slice(-1)), { message: /EEXIST/ });
});

test('nobody in the pod can answer in place of the kernel', async (t) => {
  const pod = await (await podNetwork(t)).addPod('pod');
  await netlinkForger(t, pod);
  for (let round = 0; round < 100; round++) {
    await replaceTables(pod.netns.fd, NAMES, [table(NAMES[round % NAMES.length]!)]);
  }
  assert.deepEqual(await listed(pod, 'tables'), [`table inet ${NAMES[99 % NAMES.length]}`]);
});
