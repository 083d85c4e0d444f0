/** A peer that sends "before", an urgent "!" and "after": Node's sockets have no MSG_OOB, Python's do. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { TestContext } from 'node:test';

const PROGRAM = `
import socket, sys
s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
s.send(b'before'); s.send(b'!', socket.MSG_OOB); s.send(b'after')
print('sent', flush=True); sys.stdin.read()
`;

/** Ends with the test. `sent` resolves when the kernel has everything. */
export function urgentSender(t: TestContext, port: number): { readonly sent: Promise<unknown> } {
  const child = spawn('python3', ['-c', PROGRAM, String(port)], { stdio: ['pipe', 'pipe', 'inherit'] });
  t.after(() => child.stdin.end());
  return { sent: once(child.stdout, 'data') };
}
