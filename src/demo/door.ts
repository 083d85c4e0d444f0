import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { runTag, scratchRoot } from './run-tag.ts';

/**
 * Makes ports of the demo's own network reachable from the user's: without root the agent listens on the loopback of a
 * network namespace that no browser is in. Socket files are seen from both sides.
 */
export interface Door {
  /** Where to connect, by name. */
  readonly ports: ReadonlyMap<string, number>;
  /** For the environment of the process inside. */
  readonly env: Readonly<Record<string, string>>;
  close(): void;
}

/** The outer half, in the user's network. Takes the preferred ports, or free ones when they are taken. */
export async function openDoor(preferred: Readonly<Record<string, number>>): Promise<Door> {
  const folder = mkdtempSync(join(scratchRoot, `${runTag}-door-`));
  const ports = new Map<string, number>();
  const servers: Server[] = [];
  for (const [name, port] of Object.entries(preferred)) {
    const server = relay((socket) => connect(join(folder, name)).on('error', () => socket.destroy()));
    ports.set(name, await listen(server, port));
    servers.push(server);
  }
  return {
    ports,
    env: { [VARIABLE]: JSON.stringify({ folder, ports: [...ports] }) },
    close() {
      for (const server of servers) server.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** The inner half: connects the ports to their doors. Null when nobody has opened one. */
export function answerDoor(
  targets: Readonly<Record<string, number>>,
): { ports: ReadonlyMap<string, number>; close(): void } | null {
  const text = process.env[VARIABLE];
  if (text === undefined) return null;
  const { folder, ports } = JSON.parse(text) as { folder: string; ports: [string, number][] };
  const servers = Object.entries(targets).map(([name, port]) => {
    const server = relay((socket) => connect(port, '127.0.0.1').on('error', () => socket.destroy()));
    server.on('error', () => {});
    server.listen(join(folder, name));
    server.unref();
    return server;
  });
  return {
    ports: new Map(ports),
    close() {
      for (const server of servers) server.close();
    },
  };
}

/**
 * A port on which nobody listens: the preferred one, or the next that is free in steps of a hundred. It stays this
 * process's until it ends, as no other demo takes it, and Linux gives ports from 32768 on only to who asks for any.
 */
export async function freePort(preferred: number): Promise<number> {
  for (let port = preferred; port < 32_768; port += 100) {
    // A name of this network that the kernel gives back when the process ends, however that comes about.
    const claim = await listening(`\0culvert-demo-port-${port}`);
    if (claim === null) continue;
    const server = await listening(port);
    if (server === null) {
      claim.close();
      continue;
    }
    claim.unref();
    await new Promise((resolve) => server.close(resolve));
    return port;
  }
  throw new Error(`no port is free from ${preferred} on, in steps of a hundred`);
}

const VARIABLE = 'CULVERT_DEMO_DOOR';

function relay(dial: (socket: import('node:net').Socket) => import('node:net').Socket): Server {
  return createServer({ allowHalfOpen: true }, (socket) => {
    const other = dial(socket);
    socket.on('error', () => other.destroy());
    socket.pipe(other);
    other.pipe(socket);
  });
}

function listen(server: Server, preferred: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', () => {
      server.once('error', reject);
      server.listen(0, '127.0.0.1');
    });
    server.once('listening', () => resolve((server.address() as import('node:net').AddressInfo).port));
    server.listen(preferred, '127.0.0.1');
  });
}

/** On all addresses, as a listener on any of them is in the way. Null when somebody listens there. */
function listening(where: number | string): Promise<Server | null> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(null));
    server.listen(where, () => resolve(server));
  });
}
