/** An agent as the node agent sees it: connects, says hello, and acknowledges what it is told. */
import { fstatSync } from 'node:fs';
import { connectSeqPacket } from '../../../native/seqpacket.ts';
import { closeDescriptors } from '../../../src/netns/handle.ts';
import { decodeRequest, encodeHello, encodeResponse } from '../../../src/zds/codec.ts';
import type { WorkloadRequest } from '../../../src/zds/types.ts';

export interface TestAgent {
  /** What it was told, in order; `netns` is the inode of the namespace that came along. */
  readonly told: { readonly request: WorkloadRequest; readonly netns: number | null }[];
  /** Pods that it serves now: uid → inode of the namespace. */
  readonly pods: Map<string, number>;
  isInformed(): boolean;
  isClosed(): boolean;
  close(): void;
}

/** @param answer what it says to a request: '' for yes, null for nothing at all */
export function connectTestAgent(
  path: string,
  answer: (request: WorkloadRequest) => string | null = () => '',
): TestAgent {
  const connection = connectSeqPacket(path);
  const told: TestAgent['told'] = [];
  const pods = new Map<string, number>();
  let informed = false;
  let closed = false;
  connection.start(
    (packet) => {
      if (packet.kind !== 'whole') throw new Error('a packet was cut');
      const request = decodeRequest(packet.payload);
      const [descriptor] = packet.descriptors;
      const netns = descriptor === undefined ? null : fstatSync(descriptor).ino;
      closeDescriptors(packet.descriptors);
      told.push({ request, netns });
      if (request.kind === 'add' && netns !== null) pods.set(request.uid, netns);
      if (request.kind === 'del') pods.delete(request.uid);
      if (request.kind === 'snapshot-sent') informed = true;
      const text = answer(request);
      if (text !== null) connection.send(encodeResponse(text), []);
    },
    () => {
      closed = true;
    },
  );
  connection.send(encodeHello(), []);
  return {
    told,
    pods,
    isInformed: () => informed,
    isClosed: () => closed,
    close() {
      closed = true;
      connection.close();
    },
  };
}
