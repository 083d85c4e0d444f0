/** A DNS server for the agents of a test, on an address of the loopback that is this process's own. */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import type { TestContext } from 'node:test';

export interface DnsServer {
  /** Where it listens, on port 53. */
  readonly ip: string;
  /** IPv4 addresses by name, in lower case; of any other name there is none. */
  readonly records: Map<string, readonly string[]>;
  /** Names that it was asked for, in order. */
  readonly asked: string[];
}

/** What it says holds for a second. */
const TTL = 1;
const A = 1;
const NAME_ERROR = 3;

export async function dnsServer(t: TestContext): Promise<DnsServer> {
  const ip = `127.53.${(process.pid >> 8) & 255}.${process.pid & 255}`;
  const records = new Map<string, readonly string[]>();
  const asked: string[] = [];
  const socket = createSocket('udp4');
  socket.on('message', (query, peer) => socket.send(answer(query), peer.port, peer.address));
  socket.bind(53, ip);
  await once(socket, 'listening');
  t.after(() => socket.close());

  /** RFC 1035 §4.1 */
  function answer(query: Buffer): Buffer {
    const end = query.indexOf(0, 12) + 5;
    const labels: string[] = [];
    for (let at = 12; query[at] !== 0; at += query[at]! + 1) {
      labels.push(query.toString('latin1', at + 1, at + 1 + query[at]!).toLowerCase());
    }
    const name = labels.join('.');
    asked.push(name);
    const found = records.get(name);
    const addresses = query.readUInt16BE(end - 4) === A ? (found ?? []) : [];
    const header = Buffer.from(query.subarray(0, 12));
    header.writeUInt16BE(0x8180 | (found === undefined ? NAME_ERROR : 0), 2);
    header.writeUInt16BE(addresses.length, 6);
    header.writeUInt32BE(0, 8);
    const answers = addresses.map((address) => {
      const record = Buffer.alloc(16);
      record.writeUInt16BE(0xc00c, 0);
      record.writeUInt16BE(A, 2);
      record.writeUInt16BE(1, 4);
      record.writeUInt32BE(TTL, 6);
      record.writeUInt16BE(4, 10);
      Buffer.from(address.split('.').map(Number)).copy(record, 12);
      return record;
    });
    return Buffer.concat([header, query.subarray(12, end), ...answers]);
  }

  return { ip, records, asked };
}
