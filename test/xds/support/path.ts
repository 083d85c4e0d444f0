import { connect, createServer, type Socket } from 'node:net';
import type { TestContext } from 'node:test';
import type { TestIstiod } from '../../support/istiod.ts';

export interface Path {
  /** `https://localhost:<port>` */
  readonly address: string;
  /** Nothing gets through any more, and nobody is told. */
  dead: boolean;
  /**
   * Acts when the next bytes for the client have arrived and before it looks for them, as after a time in which its thread
   * stood still.
   */
  beforeItIsRead(act: () => void): Promise<void>;
}

/** A path to the control plane. */
export async function pathTo(t: TestContext, server: TestIstiod): Promise<Path> {
  let passedBack = () => {};
  const sockets = new Set<Socket>();
  const listener = createServer((socket) => {
    const onward = connect(server.port, '127.0.0.1');
    for (const [from, to] of [
      [socket, onward],
      [onward, socket],
    ] as const) {
      const pass = (bytes: Buffer) => {
        if (path.dead) return;
        to.write(bytes);
        if (from === onward) passedBack();
      };
      sockets.add(from.on('error', () => {}).on('data', pass));
    }
    socket.on('close', () => onward.destroy());
  });
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    listener.close();
  });
  const path: Path = {
    address: `https://localhost:${(listener.address() as { port: number }).port}`,
    dead: false,
    beforeItIsRead: (act) =>
      new Promise((resolve) => {
        passedBack = () => {
          passedBack = () => {};
          setImmediate(() => {
            // The kernel may take a moment to deliver.
            Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50);
            act();
            resolve();
          });
        };
      }),
  };
  return path;
}
