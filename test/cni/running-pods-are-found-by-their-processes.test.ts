import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readlinkSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { findKubeletUser } from '../../src/cni/host/kubelet-user.ts';
import { createDiscovery } from '../../src/cni/pods/discovery-batch.ts';
import {
  findPodNamespaces,
  localIpv4,
  localIpv6,
  podUidOfCgroups,
  startTimeIn,
  uidInCgroups,
} from '../../src/cni/pods/netns-discovery.ts';
import { assertNothingOpened, openDescriptors } from '../support/descriptors.ts';
import { podNetwork } from '../support/pods.ts';

const UID = '2c8ef4a2-5a8e-4e5f-9d1b-0f3a7c6b1d22';
const SYSTEMD = UID.replaceAll('-', '_');

for (const [what, cgroups, uid] of [
  [
    'systemd, version 2',
    `0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod${SYSTEMD}.slice/cri-containerd-abc1.scope`,
    UID,
  ],
  ['cgroupfs, version 2', `0::/kubepods/besteffort/pod${UID}/abc1`, UID],
  ['seen from another cgroup namespace', `0::/../../pod${UID}/abc1`, UID],
  ['version 1, several lines', `12:cpu,cpuacct:/kubepods/pod${UID}/abc1\n11:memory:/kubepods/pod${UID}/abc1\n`, UID],
  ['CRI-O', `0::/kubepods.slice/kubepods-pod${SYSTEMD}.slice/crio-abc1.scope`, UID],
  [
    'kind, nested',
    `0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod${SYSTEMD}.slice/cri-containerd-abc1.scope`,
    UID,
  ],
  ['lines that disagree', `1:cpu:/kubepods/pod${UID}/a1\n2:memory:/kubepods/pod${UID.replace('2c', '3c')}/a1`, null],
  ['a service of the node', '0::/system.slice/kubelet.service', null],
  ['a pod without a container', `0::/kubepods/pod${UID}`, null],
  ['nothing', '', null],
] as const) {
  test(`cgroups of ${what} tell ${uid === null ? 'no pod' : 'the pod'}`, () => {
    assert.equal(podUidOfCgroups(cgroups), uid);
  });
}

test('a static pod is known to its cgroups by the hash of its manifest', () => {
  const hash = '8d3a1fbb2c0e4d6f9a7b5c3d1e0f2a4b';
  assert.equal(uidInCgroups({ uid: UID, staticUid: hash }), podUidOfCgroups(`0::/kubepods/burstable/pod${hash}/abc1`));
  assert.equal(uidInCgroups({ uid: UID, staticUid: null }), UID);
  assert.equal(uidInCgroups({ uid: UID, staticUid: 'anything' }), UID);
});

test('no text of /proc breaks its readers', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      podUidOfCgroups(text);
      podUidOfCgroups(`0::/kubepods/pod${UID}/${text}`);
      localIpv4(text);
      localIpv6(text);
      startTimeIn(text);
    }),
    { numRuns: 1000 },
  );
  // A path made to make the expression go back and forth.
  podUidOfCgroups(`0::/pod${UID}/${'a/'.repeat(20_000)}.`);
});

test('the start time is found behind a name with spaces and brackets', () => {
  assert.equal(startTimeIn(`7 (a) b (c) S ${'0 '.repeat(18)}4242 0`), 4242);
  assert.equal(startTimeIn(''), Number.POSITIVE_INFINITY);
});

test('a namespace is taken for a pod’s only with an address of the pod, and the node’s never', async (t) => {
  const network = await podNetwork(t);
  const proc = mkdtempSync(join(network.folder, 'proc-'));
  t.after(() => rmSync(proc, { recursive: true, force: true }));
  const [mine, foreign] = [await network.addPod('mine'), await network.addPod('foreign')];
  /** A process in a namespace; the real one is this. */
  const show = (pid: number, netns: string, startTime: number, uid = UID) => {
    const folder = join(proc, String(pid));
    mkdirSync(join(folder, 'ns'), { recursive: true });
    symlinkSync(netns, join(folder, 'ns/net'));
    writeFileSync(join(folder, 'cgroup'), `0::/kubepods/pod${uid}/c0ffee\n`);
    writeFileSync(join(folder, 'stat'), `${pid} (app) S ${'0 '.repeat(18)}${startTime} 0`);
    return folder;
  };
  const addressesOf = (folder: string, ip: string) => {
    mkdirSync(join(folder, 'net'));
    writeFileSync(join(folder, 'net/fib_trie'), `Local:\n     |-- ${ip}\n        /32 host LOCAL\n`);
  };
  show(1, `/proc/${process.pid}/fd/${network.node.fd}`, 1);
  addressesOf(show(50, foreign.netnsPath, 10), foreign.ipv4); // entered another pod's namespace
  addressesOf(show(60, `/proc/${process.pid}/fd/${network.node.fd}`, 5), mine.ipv4); // went to the node's
  addressesOf(show(70, mine.netnsPath, 20), mine.ipv4);
  const before = openDescriptors();

  const found = await findPodNamespaces(proc, new Map([[UID, [mine.ipv4]]]));

  assert.equal(found.size, 1);
  const { ino, dev } = statSync(mine.netnsPath);
  assert.equal(found.get(UID)!.key, `${dev}:${ino}`);
  found.get(UID)!.close();
  assert.equal((await findPodNamespaces(proc, new Map([[UID, ['192.0.2.1']]]))).size, 0);
  assert.equal((await findPodNamespaces(proc, new Map([[UID, []]]))).size, 0);
  assertNothingOpened(before);
});

test('the oldest process decides where a pod is, and what loses is closed', async (t) => {
  const network = await podNetwork(t);
  const proc = mkdtempSync(join(network.folder, 'proc-'));
  const [older, younger] = [await network.addPod('older'), await network.addPod('younger')];
  mkdirSync(join(proc, '1/ns'), { recursive: true });
  symlinkSync(`/proc/${process.pid}/fd/${network.node.fd}`, join(proc, '1/ns/net'));
  for (const [pid, pod, startTime] of [
    [20, younger, 200],
    [30, older, 100],
    [40, younger, 300],
  ] as const) {
    const folder = join(proc, String(pid));
    mkdirSync(join(folder, 'ns'), { recursive: true });
    mkdirSync(join(folder, 'net'));
    symlinkSync(pod.netnsPath, join(folder, 'ns/net'));
    writeFileSync(join(folder, 'net/fib_trie'), '     |-- 10.0.0.9\n        /32 host LOCAL\n');
    writeFileSync(join(folder, 'cgroup'), `0::/kubepods/pod${UID}/c0ffee\n`);
    writeFileSync(join(folder, 'stat'), `${pid} (app) S ${'0 '.repeat(18)}${startTime} 0`);
  }
  const before = openDescriptors();
  const found = await findPodNamespaces(proc, new Map([[UID, ['10.0.0.9']]]));
  assert.equal(found.get(UID)!.key, older.netns.key);
  found.get(UID)!.close();
  assertNothingOpened(before);
});

test('a static pod is found, and a pod that claims the uid of another gets nothing of it', async (t) => {
  const network = await podNetwork(t);
  const proc = mkdtempSync(join(network.folder, 'proc-'));
  const hash = UID.replaceAll('-', '');
  const pod = await network.addPod('static');
  const folder = join(proc, '20');
  for (const name of ['ns', 'net']) mkdirSync(join(folder, name), { recursive: true });
  symlinkSync(pod.netnsPath, join(folder, 'ns/net'));
  writeFileSync(join(folder, 'cgroup'), `0::/kubepods/pod${hash}/c0ffee\n`);
  writeFileSync(join(folder, 'net/fib_trie'), '     |-- 10.0.0.9\n        /32 host LOCAL\n');
  const discover = createDiscovery(proc);
  const [claimed, ...mine] = await Promise.all([
    discover({ uid: 'another', staticUid: hash, ips: ['10.0.0.8'] }),
    discover({ uid: 'mirror', staticUid: hash, ips: ['10.0.0.9'] }),
    discover({ uid: 'mirror', staticUid: hash, ips: ['10.0.0.9'] }),
  ]);
  assert.equal(claimed, null);
  for (const netns of mine) {
    assert.equal(netns?.key, pod.netns.key);
    netns?.close();
  }
});

test('a process that moves while it is looked at is not followed', async (t) => {
  const network = await podNetwork(t);
  const proc = mkdtempSync(join(network.folder, 'proc-'));
  const [mine, other] = [await network.addPod('mine'), await network.addPod('other')];
  const folder = join(proc, '20');
  for (const name of ['ns', 'net']) mkdirSync(join(folder, name), { recursive: true });
  symlinkSync(mine.netnsPath, join(folder, 'ns/net'));
  writeFileSync(join(folder, 'cgroup'), `0::/kubepods/pod${UID}/c0ffee\n`);
  execFileSync('mkfifo', [join(folder, 'net/fib_trie')]);
  // Opening it waits for the reader: then the namespace changes, and only then come the addresses.
  const mover = spawn('bash', [
    '-c',
    `exec 3>"$1/net/fib_trie"; ln -sfn "$2" "$1/ns/net"; printf '     |-- 10.0.0.9\\n        /32 host LOCAL\\n' >&3`,
    ...['bash', folder, other.netnsPath],
  ]);
  t.after(() => mover.kill('SIGKILL'));
  const before = openDescriptors();
  assert.equal((await findPodNamespaces(proc, new Map([[UID, ['10.0.0.9']]]))).size, 0);
  assert.equal(readlinkSync(join(folder, 'ns/net')), other.netnsPath);
  assertNothingOpened(before);
});

test('addresses are read from a real namespace', async (t) => {
  const network = await podNetwork(t);
  const pod = await network.addPod('real');
  const trie = await pod.run(['cat', '/proc/self/net/fib_trie']);
  assert.ok(localIpv4(trie.stdout).includes(pod.ipv4));
  if (pod.ipv6 === null) return;
  const inet6 = await pod.run(['cat', '/proc/self/net/if_inet6']);
  assert.ok(localIpv6(inet6.stdout).includes(pod.ipv6));
});

test('the kubelet is known under the names it has', (t) => {
  const proc = mkdtempSync('/tmp/culvert-proc-');
  t.after(() => rmSync(proc, { recursive: true, force: true }));
  const show = (pid: number, comm: string, cmdline: string, uid: number) => {
    mkdirSync(join(proc, String(pid)));
    writeFileSync(join(proc, String(pid), 'comm'), `${comm}\n`);
    writeFileSync(join(proc, String(pid), 'cmdline'), cmdline);
    writeFileSync(join(proc, String(pid), 'status'), `Name:\t${comm}\nUid:\t${uid}\t0\t0\t0\n`);
  };
  show(5, 'bash', 'bash', 1000);
  show(6, 'kubelite', 'kubelite\0--apiserver', 7);
  assert.equal(findKubeletUser(proc), null);
  show(7, 'kubelite', 'kubelite\0--kubelet-args-file', 12);
  assert.equal(findKubeletUser(proc), 12);
  rmSync(join(proc, '7'), { recursive: true });
  show(8, 'kubelet', 'kubelet', 0);
  assert.equal(findKubeletUser(proc), 0);
  assert.throws(() => findKubeletUser(join(proc, 'absent')), {
    code: 'HOST_PROC_UNREADABLE',
    message: /CULVERT_HOST_PROC/,
  });
});
