/**
 * Reading protobuf in place. Strict about wire types and bounds of what is known; fields that are not known are skipped.
 * Whatever is thrown means that the message cannot be read.
 */
import { isUtf8 } from 'node:buffer';
import type protobuf from 'protobufjs/minimal.js';

export type Reader = protobuf.Reader;

/** Reads one field of a message; false for a field it does not know, which is then skipped. */
export type FieldReader = (field: number, wireType: number, reader: Reader) => boolean;

/** Calls `read` for every field from where the reader is up to `end`. */
export function readFields(reader: Reader, end: number, read: FieldReader): void {
  while (reader.pos < end) {
    const key = reader.uint32();
    const field = key >>> 3;
    if (field === 0) throw new Error('field number 0');
    if (!read(field, key & 7, reader)) reader.skipType(key & 7, 0, field);
    if (reader.pos > end) throw new Error(`field ${field} is longer than its message`);
  }
}

/** The same for a message inside a message. */
export function readMessage(reader: Reader, wireType: number, read: FieldReader): void {
  readFields(reader, endOf(reader, wireType), read);
}

export function readText(reader: Reader, wireType: number): string {
  return textUpTo(reader, endOf(reader, wireType));
}

/** The text from where the reader is up to `end`, where the reader is then. */
export function textUpTo(reader: Reader, end: number): string {
  const { buf: bytes, pos: start } = reader;
  const text = utf8.call(bytes, start, end);
  reader.pos = end;
  // The replacement character stands for what is no UTF-8, or for itself.
  if (text.includes('\uFFFD') && !isUtf8(bytes.subarray(start, end))) throw new Error('text that is not UTF-8');
  return text;
}

export function readBytes(reader: Reader, wireType: number): Uint8Array {
  const end = endOf(reader, wireType);
  const bytes = reader.buf.subarray(reader.pos, end);
  reader.pos = end;
  return bytes;
}

/** Any number of 32 bits; enumerations are such numbers. */
export function readNumber(reader: Reader, wireType: number): number {
  expectWireType(wireType, VARINT);
  return reader.uint32();
}

export function readFlag(reader: Reader, wireType: number): boolean {
  return readNumber(reader, wireType) !== 0;
}

/** A repeated number, packed or not. */
export function readNumbers(reader: Reader, wireType: number, into: number[]): void {
  if (wireType === VARINT) {
    into.push(reader.uint32());
    return;
  }
  for (const end = endOf(reader, wireType); reader.pos < end; ) into.push(reader.uint32());
}

/** Where the text, bytes or message that starts here ends. The reader is then at its first byte. */
export function endOf(reader: Reader, wireType: number): number {
  expectWireType(wireType, BYTES);
  const length = reader.uint32();
  const end = reader.pos + length;
  if (end > reader.len) throw new Error('cut off');
  return end;
}

export const VARINT = 0;
export const FIXED64 = 1;
export const BYTES = 2;
export const FIXED32 = 5;

export function tag(field: number, wireType: number): number {
  return (field << 3) | wireType;
}

function expectWireType(given: number, expected: number): void {
  if (given !== expected) throw new Error(`wire type ${given} where ${expected} belongs`);
}

const utf8 = Buffer.prototype.utf8Slice;
