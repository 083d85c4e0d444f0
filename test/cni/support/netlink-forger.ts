/**
 * Somebody in a pod who writes to the netlink socket of this process, as whoever has CAP_NET_ADMIN there may: "refused", to
 * each of the first requests of an exchange.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { TestContext } from 'node:test';
import { argvInNetns, stdioInNetns } from '../../../src/netns/run.ts';
import type { Pod } from '../../support/pods.ts';

const PROGRAM = `
import socket, struct, sys, threading
NLMSG_ERROR, EPERM, agent = 2, 1, int(sys.argv[1])
forged = b''.join(struct.pack('<IHHIIi16x', 36, NLMSG_ERROR, 0, request, agent, -EPERM) for request in range(8))
s, done = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 12), threading.Event()
def write():
    while not done.is_set():
        try: s.sendto(forged, (agent, 0))
        except (ConnectionRefusedError, BlockingIOError): pass
threading.Thread(target=write).start()
print('writing', flush=True); sys.stdin.read(); done.set()
`;

/** Resolves when it writes. Ends with the test. */
export async function netlinkForger(t: TestContext, pod: Pod): Promise<void> {
  const [program, ...args] = argvInNetns(['python3', '-c', PROGRAM, String(process.pid)], pod.netns.fd);
  const child = spawn(program!, args, { stdio: stdioInNetns(['pipe', 'pipe', 'pipe'], pod.netns.fd) });
  child.stderr!.pipe(process.stderr);
  t.after(async () => {
    child.stdin!.end();
    if (child.exitCode === null) await once(child, 'exit');
  });
  await once(child.stdout!, 'data');
}
