import assert from 'node:assert/strict';
import { closeSync, openSync, readlinkSync } from 'node:fs';
import { test } from 'node:test';
import { dupFd, inspectNetns, openNetns } from '../../native/netns.ts';
import { adoptNetns, openNetnsHandle } from '../../src/netns/handle.ts';
import { assertNothingOpened, openDescriptors } from '../support/descriptors.ts';
import { podNetwork } from '../support/pods.ts';

const impostors = [
  '/dev/null',
  '/etc/passwd',
  '/proc/self',
  '/proc/self/ns/mnt',
  '/proc/self/ns/pid',
  '/proc/self/ns/user',
  '/',
];

test('a descriptor that is no network namespace is refused and closed', () => {
  const before = openDescriptors();
  for (const path of impostors) {
    assert.throws(() => adoptNetns(openSync(path, 'r')), { code: 'NETNS_INVALID' }, path);
    assert.throws(() => openNetnsHandle(path), { code: 'NETNS_INVALID' }, path);
    assert.throws(() => openNetns(path), { code: 'NOT_A_NETNS' }, path);
  }
  assertNothingOpened(before);
});

test('what cannot be opened or is not open is said to be unavailable', () => {
  assert.throws(() => openNetnsHandle('/run/netns/there-is-none'), {
    code: 'NETNS_UNAVAILABLE',
    message: /no such file/i,
  });
  assert.throws(() => adoptNetns(9999), { code: 'NETNS_UNAVAILABLE' });
  assert.throws(() => inspectNetns(9999), { code: 'EBADF' });
});

test('inode and device are those of the namespace file', () => {
  const fd = openNetns('/proc/self/ns/net');
  const { ino } = inspectNetns(fd);
  assert.equal(readlinkSync('/proc/self/ns/net'), `net:[${ino}]`);
  closeSync(fd);
});

test('handles of one namespace have one key, and each its own life', async (t) => {
  const network = await podNetwork(t);
  const pod = await network.addPod('pod');
  const other = await network.addPod('other');
  const before = openDescriptors();
  const handle = openNetnsHandle(pod.netnsPath);
  const second = handle.duplicate();
  const third = adoptNetns(dupFd(handle.fd));
  assert.equal(handle.key, pod.netns.key);
  assert.equal(second.key, handle.key);
  assert.equal(third.key, handle.key);
  assert.notEqual(other.netns.key, handle.key);
  handle.close();
  handle.close();
  assert.throws(() => handle.duplicate(), { code: 'NETNS_UNAVAILABLE' });
  inspectNetns(second.fd);
  second.close();
  third.close();
  assertNothingOpened(before);
});
