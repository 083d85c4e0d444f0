/** A network namespace whose TCP sockets have the smallest buffers there are. */
import '../../support/pods.ts'; // for the right to make it
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { TestContext } from 'node:test';
import { closeFd, type KeepAlive, openNetns } from '../../../native/netns.ts';

// Segments of an ordinary link: a window of less than one segment of loopback's would crawl.
const SET_UP = `
ip link set lo mtu 1500 up
cd /proc/sys/net/ipv4
echo 4096 4096 4096 > tcp_rmem && echo 4608 4608 4608 > tcp_wmem && echo 10000 65000 > ip_local_port_range
echo ready; exec cat
`;

/**
 * For connections in it. Where a buffer is full the kernel drops bytes and closes the window, and a reset that comes behind
 * those bytes is outside of it and lost for good; an answer to a probe is another one.
 */
export const PROBES: KeepAlive = { time: 1, interval: 1, retries: 100 };

/** Its descriptor; the namespace goes with the test. */
export async function tinyBuffers(t: TestContext): Promise<number> {
  const child = spawn('unshare', ['--net', 'sh', '-e', '-c', SET_UP], { stdio: ['pipe', 'pipe', 'inherit'] });
  t.after(() => child.stdin.end());
  const [ready] = await once(child.stdout, 'data');
  if (String(ready) !== 'ready\n') throw new Error('the namespace is not ready');
  const netns = openNetns(`/proc/${child.pid}/ns/net`);
  t.after(() => closeFd(netns));
  return netns;
}
