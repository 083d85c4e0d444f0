import { once } from 'node:events';
import { createServer, type ListenOptions, type Server } from 'node:net';

/**
 * Free ports are drawn from below those that Linux gives to connections and to listeners on port 0 (32768 and up), so
 * that nobody is given one before its user has bound it, and above those that the agent and the demo ask for. Each
 * process draws from a part of its own.
 */
const FIRST = 16_384;
const PART = 128;
const PARTS = (32_768 - FIRST) / PART;

/** The first port of the own part, and how many were drawn of it. */
let part: Promise<number> | null = null;
let drawn = 0;

/** Different TCP ports of the own namespace on which nobody listens, and nobody will but who is told of them. */
export async function freePorts(count: number): Promise<number[]> {
  part ??= ownPart();
  const first = await part;
  const ports: number[] = [];
  for (let tried = 0; ports.length < count; tried++) {
    if (tried > PART) throw new Error(`no ${count} free ports from ${first} to ${first + PART - 1}`);
    const port = first + (drawn++ % PART);
    const server = await listening({ port });
    if (server === null) continue;
    server.close();
    await once(server, 'close');
    ports.push(port);
  }
  return ports;
}

export async function freePort(): Promise<number> {
  return (await freePorts(1))[0]!;
}

/** A name that only one process of a network namespace has at a time, and that the kernel gives back when it ends. */
async function ownPart(): Promise<number> {
  for (let index = 0; index < PARTS; index++) {
    const at = (process.pid + index) % PARTS;
    const holder = await listening({ path: `\0culvert-test-ports-${at}` });
    if (holder === null) continue;
    holder.unref();
    return FIRST + at * PART;
  }
  throw new Error(`${PARTS} processes hold ports for tests`);
}

/** Null when somebody else listens there. */
async function listening(where: ListenOptions): Promise<Server | null> {
  const server = createServer().listen(where);
  try {
    await once(server, 'listening');
    return server;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE') return null;
    throw error;
  }
}
