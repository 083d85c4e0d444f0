import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import type { TestContext } from 'node:test';

export interface Path {
  readonly port: number;
  /** `https://localhost:<port>` */
  readonly address: string;
  /** Nothing gets through any more, and nobody is told. */
  dead: boolean;
  /**
   * Acts when the next bytes for the client, or for the server, have arrived and before it looks for them, as after a time
   * in which its thread stood still.
   */
  beforeItIsRead(by: 'client' | 'server', act: () => void): Promise<void>;
}

/** A path to the control plane. */
export async function pathTo(t: TestContext, server: { readonly port: number }): Promise<Path> {
  const passed = { client() {}, server() {} };
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
        passed[from === onward ? 'client' : 'server']();
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
  const { port } = listener.address() as AddressInfo;
  const path: Path = {
    port,
    address: `https://localhost:${port}`,
    dead: false,
    beforeItIsRead: (by, act) =>
      new Promise((resolve) => {
        passed[by] = () => {
          passed[by] = () => {};
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
