import { connectSeqPacket, type Packet, type SeqPacketConnection } from '../../native/seqpacket.ts';
import { createBackoff } from '../backoff.ts';
import { CulvertError, messageOf } from '../errors.ts';
import type { Logger } from '../log/logger.ts';
import { adoptNetns, closeDescriptors, type NetnsHandle } from '../netns/handle.ts';
import { decodeRequest, encodeHello, encodeResponse } from './codec.ts';
import type { ZdsSession } from './session.ts';
import type { Timers, WorkloadRequest } from './types.ts';

/** The wire of the agent's side of ZDS: one connection at a time, made again for as long as the agent runs (spec §1.6). */
export interface ZdsClient {
  /** Counted since the start; each one is a line in the log as well. */
  readonly counters: Readonly<ZdsClientCounters>;
  /** Stops reading and closes the connection. Pods go on: whoever calls this drains them. */
  close(): void;
}

export interface ZdsClientCounters {
  /** Connections made. */
  connections: number;
  /** Connections that could not be made, or ended before their snapshot was complete. */
  failedConnections: number;
  /** Packets that were cut, could not be read, or had the wrong number of descriptors. */
  unreadablePackets: number;
  /** Requests that broke the protocol. */
  violations: number;
}

export interface ZdsClientOptions {
  /** Path of the node agent's socket. */
  readonly path: string;
  readonly session: ZdsSession;
  readonly timers: Timers;
  /** Returns 0 (included) to 1. */
  readonly random: () => number;
  readonly log: Pick<Logger, 'info' | 'warn' | 'error'>;
}

/** Begins to connect. A peer that breaks the protocol loses its connection; the agent never ends because of it. */
export function startZdsClient({ path, session, timers, random, log }: ZdsClientOptions): ZdsClient {
  const counters: ZdsClientCounters = { connections: 0, failedConnections: 0, unreadablePackets: 0, violations: 0 };
  const backoff = createBackoff({ firstMs: FIRST_DELAY_MS, maxMs: MAX_DELAY_MS, jitter: JITTER, random });
  let current: SeqPacketConnection | null = null;
  let cancelReconnect: (() => void) | null = null;
  let closed = false;
  let queued = 0;
  let queue = Promise.resolve();
  connect();

  return {
    counters,
    close() {
      closed = true;
      cancelReconnect?.();
      drop();
    },
  };

  function connect(): void {
    let connection: SeqPacketConnection;
    try {
      connection = connectSeqPacket(path);
    } catch (cause) {
      const error = messageOf(cause);
      log.warn('zds', 'failed to connect to the node agent, is it healthy?', { path, error });
      reconnect('failed');
      return;
    }
    counters.connections++;
    current = connection;
    session.connected();
    connection.start(
      (packet) => enqueue(connection, packet),
      (code) => {
        if (connection !== current) return;
        log.info('zds', 'process stream ended with eof', code === null ? {} : { error: code });
        disconnect();
      },
    );
    send(connection, encodeHello());
  }

  /** Packets are handled one after another; what is left of a connection that has gone is thrown away. */
  function enqueue(connection: SeqPacketConnection, packet: Packet): void {
    if (++queued > MAX_QUEUED) {
      queued--;
      if (packet.kind === 'whole') closeDescriptors(packet.descriptors);
      if (connection === current) refuse(connection, 'requests are sent without waiting for their acknowledgement');
      return;
    }
    queue = queue
      .then(async () => {
        queued--;
        if (connection === current) await handle(connection, packet);
        else if (packet.kind === 'whole') closeDescriptors(packet.descriptors);
      })
      .catch((error) => {
        // A fault in here must not end the agent, nor leave the node agent waiting.
        log.error('zds', 'cannot handle a request, dropping the connection', { error: messageOf(error) });
        if (connection === current) disconnect();
      });
  }

  async function handle(connection: SeqPacketConnection, packet: Packet): Promise<void> {
    let message: ReadMessage;
    try {
      message = readMessage(packet);
    } catch (cause) {
      counters.unreadablePackets++;
      const text = `failure to read message : ${messageOf(cause)}`;
      log.warn('zds', text);
      answer(connection, text);
      if (connection === current) disconnect();
      return;
    }
    const outcome = await session.receive(message.request, message.netns);
    if (connection !== current) return;
    if (outcome.kind === 'violation') refuse(connection, outcome.text);
    else answer(connection, outcome.kind === 'ack' ? '' : outcome.text);
    if (session.readiness() === 'ready' || session.readiness() === 'pods-pending') backoff.reset();
  }

  function refuse(connection: SeqPacketConnection, text: string): void {
    counters.violations++;
    log.error('zds', 'protocol mismatch error while processing stream, dropping the connection', { error: text });
    answer(connection, text);
    if (connection === current) disconnect();
  }

  function answer(connection: SeqPacketConnection, error: string): void {
    send(connection, encodeResponse(boundedText(error)));
  }

  function send(connection: SeqPacketConnection, packet: Uint8Array): void {
    try {
      connection.send(packet, NO_DESCRIPTORS);
    } catch (cause) {
      if (connection !== current) return;
      log.warn('zds', 'cannot send to the node agent, connecting anew', { error: messageOf(cause) });
      disconnect();
    }
  }

  function drop(): 'failed' | 'complete' {
    const complete = session.readiness() === 'ready' || session.readiness() === 'pods-pending';
    current?.close();
    current = null;
    session.disconnected();
    return complete ? 'complete' : 'failed';
  }

  function disconnect(): void {
    reconnect(drop());
  }

  function reconnect(previous: 'failed' | 'complete'): void {
    if (closed) return;
    if (previous === 'failed') counters.failedConnections++;
    cancelReconnect = timers.after(backoff.next(), connect);
  }
}

interface ReadMessage {
  readonly request: WorkloadRequest;
  /** Why the descriptor of an `add` cannot be used is for the pod's acknowledgement, not the connection's end. */
  readonly netns: NetnsHandle | CulvertError | null;
}

/** @throws CulvertError when packet and descriptors do not make a message; the descriptors are closed then. */
function readMessage(packet: Packet): ReadMessage {
  if (packet.kind === 'truncated') throw new CulvertError('ZDS_TRUNCATED', 'received truncated message');
  const { payload, descriptors } = packet;
  try {
    const request = decodeRequest(payload);
    const [descriptor] = descriptors;
    if (request.kind !== 'add') {
      if (descriptor !== undefined) throw new CulvertError('ZDS_DESCRIPTORS', 'Unexpected control message');
      return { request, netns: null };
    }
    if (descriptor === undefined) throw new CulvertError('ZDS_DESCRIPTORS', 'No control message');
    if (descriptors.length > 1) {
      throw new CulvertError('ZDS_DESCRIPTORS', `Expected 1 FD, got ${descriptors.length}`);
    }
    return { request, netns: adopt(descriptor) };
  } catch (error) {
    closeDescriptors(descriptors);
    throw error;
  }
}

function adopt(descriptor: number): NetnsHandle | CulvertError {
  try {
    return adoptNetns(descriptor);
  } catch (error) {
    return error as CulvertError;
  }
}

/** Cuts an error text so that its packet fits the node agent's buffer of 1024 bytes. */
function boundedText(text: string): string {
  const bytes = Buffer.from(text);
  if (bytes.length <= MAX_ERROR_BYTES) return text;
  // A character cut in half decodes to U+FFFD and goes.
  return `${bytes
    .subarray(0, MAX_ERROR_BYTES)
    .toString()
    .replace(/\uFFFD+$/, '')}…`;
}

const FIRST_DELAY_MS = 20;
const MAX_DELAY_MS = 15_000;
const JITTER = 0.2;
const MAX_ERROR_BYTES = 900;
/** The node agent sends one and waits; more than a few in flight is not its protocol. */
const MAX_QUEUED = 64;
const NO_DESCRIPTORS: readonly number[] = [];
