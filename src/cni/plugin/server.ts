import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { listenSeqPacket, type Packet, type SeqPacketConnection } from '../../../native/seqpacket.ts';
import { CulvertError, messageOf } from '../../errors.ts';
import type { Logger } from '../../log/logger.ts';
import { adoptNetns, closeDescriptors, type NetnsHandle } from '../../netns/handle.ts';
import {
  CNI_ERROR,
  MAX_REQUEST_BYTES,
  type PluginAnswer,
  type PluginRequest,
  readPluginRequest,
  writePluginAnswer,
} from './request.ts';

/** The socket on which the CNI plugin calls: one request and one answer per connection. */
export interface PluginServer {
  close(): void;
}

export interface PluginServerOptions {
  readonly path: string;
  /** The handle is the callee's. What it throws is answered as an error that the runtime tries again. */
  readonly handle: (request: PluginRequest, netns: NetnsHandle | null) => Promise<PluginAnswer>;
  readonly log: Pick<Logger, 'warn'>;
  readonly onAnswer: (command: string, answer: PluginAnswer, ms: number) => void;
}

/** Enough for every pod of a node that boots. */
const BACKLOG = 256;

/** @throws the errno of listen when the path cannot be used */
export function startPluginServer({ path, handle, log, onAnswer }: PluginServerOptions): PluginServer {
  // Whoever may connect may have a namespace enrolled: root only.
  mkdirSync(dirname(path), { recursive: true, mode: 0o750 });
  const connections = new Set<SeqPacketConnection>();
  const listener = listenSeqPacket(
    path,
    (connection) => {
      connections.add(connection);
      connection.start(
        (packet) => void receive(connection, packet),
        () => connections.delete(connection),
      );
    },
    (error) => log.warn('plugin', 'cannot accept a call of the CNI plugin', { error }),
    { backlog: BACKLOG, packetSize: MAX_REQUEST_BYTES },
  );

  return {
    close() {
      listener.close();
      for (const connection of connections) connection.close();
      connections.clear();
    },
  };

  async function receive(connection: SeqPacketConnection, packet: Packet): Promise<void> {
    const started = performance.now();
    let command = 'unknown';
    let answer: PluginAnswer;
    try {
      const { request, netns } = open(packet);
      command = request.command;
      answer = await handle(request, netns);
    } catch (error) {
      const code = error instanceof CulvertError && error.code === 'CNI_REQUEST_INVALID' ? 'decoding' : 'tryAgain';
      answer = { kind: 'error', code: CNI_ERROR[code], message: messageOf(error) };
    }
    onAnswer(command, answer, performance.now() - started);
    try {
      connection.send(writePluginAnswer(answer), []);
    } catch {
      // The plugin has given up waiting; the runtime will ask again or delete the sandbox.
    }
    connection.close();
    connections.delete(connection);
  }
}

function open(packet: Packet): { request: PluginRequest; netns: NetnsHandle | null } {
  if (packet.kind === 'truncated') {
    throw new CulvertError(
      'CNI_REQUEST_INVALID',
      `the network configuration is longer than ${MAX_REQUEST_BYTES} bytes`,
    );
  }
  const [first, ...more] = packet.descriptors;
  closeDescriptors(more);
  const netns = first === undefined ? null : adoptNetns(first);
  try {
    return { request: readPluginRequest(packet.payload), netns };
  } catch (error) {
    netns?.close();
    throw error;
  }
}
