/** Writing protobuf: what has its default value is left out, so the same content is always the same bytes. */
import protobuf from 'protobufjs/minimal.js';
import { parseIp } from '../../netns/address.ts';
import { BYTES, tag, VARINT } from '../../xds/wire.ts';

export type Writer = protobuf.Writer;

/** A message on its own. It gets memory of its own: a piece of a shared buffer would keep the whole buffer. */
export function encoded(write: (writer: Writer) => void): Uint8Array {
  const writer = protobuf.Writer.create();
  write(writer);
  const bytes = writer.finish();
  return bytes.buffer.byteLength === bytes.length ? bytes : new Uint8Array(bytes);
}

export function writeText(writer: Writer, field: number, text: string): void {
  if (text !== '') writer.uint32(tag(field, BYTES)).string(text);
}

export function writeNumber(writer: Writer, field: number, number: number): void {
  if (number !== 0) writer.uint32(tag(field, VARINT)).uint32(number);
}

export function writeFlag(writer: Writer, field: number, flag: boolean): void {
  if (flag) writer.uint32(tag(field, VARINT)).bool(true);
}

/** A repeated number, packed. */
export function writeNumbers(writer: Writer, field: number, numbers: readonly number[]): void {
  if (numbers.length === 0) return;
  writer.uint32(tag(field, BYTES)).fork();
  for (const number of numbers) writer.uint32(number);
  writer.ldelim();
}

export function writeMessage(writer: Writer, field: number, write: () => void): void {
  writer.uint32(tag(field, BYTES)).fork();
  write();
  writer.ldelim();
}

/** A canonical address as its 4 or 16 bytes. */
export function writeIp(writer: Writer, field: number, ip: string): void {
  writer.uint32(tag(field, BYTES)).bytes(bytesOf(ip));
}

function bytesOf(ip: string): Uint8Array {
  const { family, words } = parseIp(ip)!;
  const bytes = Buffer.allocUnsafe(family === 4 ? 4 : 16);
  for (let at = 0; at < bytes.length; at += 4) bytes.writeUInt32BE(words[at / 4]!, at);
  return bytes;
}
