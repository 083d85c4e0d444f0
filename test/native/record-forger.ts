/**
 * A TLS client whose records are made by hand once the handshake is done, to send what no library would. The handshake is
 * node:tls's, which tells its traffic secrets (RFC 8446 §7.1) for a key log.
 */

import { createCipheriv, createDecipheriv, createHmac } from 'node:crypto';
import { once } from 'node:events';
import { connect as netConnect, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { connect as tlsConnect } from 'node:tls';
import type { TestMaterial } from './authority.ts';
import { LOCAL } from './side.ts';

export const ALERT = 21;
export const HANDSHAKE = 22;
export const APPLICATION = 23;

/** A type of handshake message. */
export const KEY_UPDATE = 24;

export interface OpenedRecord {
  readonly type: number;
  readonly content: Buffer;
}

/** One direction. */
class Keys {
  #secret: Buffer;
  #sequence = 0n;

  constructor(secret: Buffer) {
    this.#secret = secret;
  }

  /** The next generation (RFC 8446 §7.2). */
  update(): void {
    this.#secret = expandLabel(this.#secret, 'traffic upd', this.#secret.length);
    this.#sequence = 0n;
  }

  /** Passes over records that nobody looks at. */
  skip(records: number): void {
    this.#sequence += BigInt(records);
  }

  seal(inner: Uint8Array, header: Uint8Array): Buffer {
    const cipher = createCipheriv('aes-256-gcm', ...this.#next()).setAAD(header);
    return Buffer.concat([header, cipher.update(inner), cipher.final(), cipher.getAuthTag()]);
  }

  open(record: Buffer): Buffer {
    const decipher = createDecipheriv('aes-256-gcm', ...this.#next())
      .setAAD(record.subarray(0, 5))
      .setAuthTag(record.subarray(-16));
    return Buffer.concat([decipher.update(record.subarray(5, -16)), decipher.final()]);
  }

  /** Key and nonce of the next record. */
  #next(): [Buffer, Buffer] {
    const nonce = expandLabel(this.#secret, 'iv', 12);
    nonce.writeBigUInt64BE(nonce.readBigUInt64BE(4) ^ this.#sequence++, 4);
    return [expandLabel(this.#secret, 'key', 32), nonce];
  }
}

export class RecordForger {
  readonly socket: Socket;
  readonly sending: Keys;
  readonly receiving: Keys;
  /** The client's last handshake records, when they were held back. */
  readonly lastFlight: Buffer;
  #input = Buffer.alloc(0);
  #more = Promise.withResolvers<void>();
  #ended = false;

  constructor(socket: Socket, sending: Buffer, receiving: Buffer, lastFlight: Buffer) {
    this.socket = socket;
    this.sending = new Keys(sending);
    this.receiving = new Keys(receiving);
    this.lastFlight = lastFlight;
    const look = () => {
      this.#more.resolve();
      this.#more = Promise.withResolvers();
    };
    socket.on('data', (chunk: Buffer) => {
      this.#input = Buffer.concat([this.#input, chunk]);
      look();
    });
    const end = () => {
      this.#ended = true;
      look();
    };
    socket.on('end', end);
    socket.on('error', end);
  }

  /** A record with `padding` zeros behind its content (RFC 8446 §5.2). */
  record(type: number, content: Uint8Array | string, padding = 0): Buffer {
    const bytes = typeof content === 'string' ? Buffer.from(content) : content;
    return this.recordOfInner(Buffer.concat([bytes, Buffer.of(type), Buffer.alloc(padding)]));
  }

  recordOfInner(inner: Uint8Array): Buffer {
    return this.sending.seal(inner, header(APPLICATION, inner.length + 16));
  }

  send(...records: readonly Uint8Array[]): void {
    this.socket.write(Buffer.concat(records));
  }

  /**
   * Counts records as long as they have the size of the first one. Resolves to how many they were and what follows, at
   * least `more` bytes of it.
   */
  countEqualRecords(more: number): Promise<{ readonly count: number; readonly rest: Buffer }> {
    const { socket } = this;
    socket.removeAllListeners('data');
    let rest = this.#input;
    let size = 0;
    let count = 0;
    return new Promise((resolve) => {
      socket.on('data', (chunk: Buffer) => {
        rest = Buffer.concat([rest, chunk]);
        let at = 0;
        for (; at + 5 <= rest.length; at += size, count++) {
          size ||= 5 + rest.readUInt16BE(3);
          if (rest.readUInt16BE(at + 3) !== size - 5) break;
          if (at + size > rest.length) break;
        }
        rest = rest.subarray(at);
        if (rest.length < 5 + more || rest.readUInt16BE(3) === size - 5) return;
        socket.removeAllListeners('data');
        resolve({ count, rest });
      });
    });
  }

  /** The next record of the other side, or null at the end of the connection. */
  async receive(): Promise<OpenedRecord | null> {
    while (this.#input.length < 5 || this.#input.length < 5 + this.#input.readUInt16BE(3)) {
      if (this.#ended) return null;
      await this.#more.promise;
    }
    const length = 5 + this.#input.readUInt16BE(3);
    const inner = this.receiving.open(this.#input.subarray(0, length));
    this.#input = this.#input.subarray(length);
    const end = inner.findLastIndex((byte) => byte !== 0);
    return { type: inner[end]!, content: inner.subarray(0, end) };
  }
}

/** The outer header of a record. */
export function header(type: number, length: number): Buffer {
  return Buffer.of(type, 3, 3, length >> 8, length & 0xff);
}

/** A handshake message. */
export function message(type: number, body: Uint8Array): Buffer {
  return Buffer.concat([Buffer.of(type, body.length >> 16, (body.length >> 8) & 0xff, body.length & 0xff), body]);
}

/** Makes the handshake. With `hold`, its last flight is not sent but left to the caller. */
export async function forge(port: number, material: TestMaterial, hold = false): Promise<RecordForger> {
  const socket = netConnect({ host: LOCAL, port, noDelay: true, allowHalfOpen: true }).unref();
  await once(socket, 'connect');
  const secrets = new Map<string, Buffer>();
  const held: Buffer[] = [];
  let answered = false;
  const wire = new Duplex({
    read() {},
    write(chunk: Buffer, _encoding, done) {
      if (hold && answered) held.push(chunk);
      else socket.write(chunk);
      done();
    },
  });
  const forward = (chunk: Buffer) => {
    answered = true;
    wire.push(chunk);
  };
  socket.on('data', forward);
  const tls = tlsConnect({
    socket: wire,
    ca: material.rootsPem,
    cert: material.chainPem,
    key: material.keyPem,
    ciphers: 'TLS_AES_256_GCM_SHA384',
    ALPNProtocols: ['h2'],
    checkServerIdentity: () => undefined,
  });
  tls.on('keylog', (line: Buffer) => {
    const [label, , secret] = line.toString('latin1').trim().split(' ');
    secrets.set(label!, Buffer.from(secret!, 'hex'));
  });
  await once(tls, 'secureConnect');
  socket.off('data', forward);
  return new RecordForger(
    socket,
    secrets.get('CLIENT_TRAFFIC_SECRET_0')!,
    secrets.get('SERVER_TRAFFIC_SECRET_0')!,
    Buffer.concat(held),
  );
}

/** HKDF-Expand-Label with an empty context (RFC 8446 §7.1), of at most one block. */
function expandLabel(secret: Buffer, label: string, length: number): Buffer {
  const full = Buffer.from(`tls13 ${label}`);
  const info = Buffer.concat([Buffer.of(length >> 8, length & 0xff, full.length), full, Buffer.of(0, 1)]);
  return createHmac('sha384', secret).update(info).digest().subarray(0, length);
}
