import protobuf from 'protobufjs/minimal.js';
import { CulvertError, messageOf } from '../errors.ts';
import type { WorkloadInfo, WorkloadRequest } from './types.ts';

/**
 * The messages of ZDS (package istio.workload.zds, spec §1.2), one per packet. Field numbers that surprise: the uid of
 * DelWorkload is 2, keep is 5.
 *
 * Readers are strict about what they know (wire types, UTF-8, bounds) and skip what they do not. Everything they throw
 * is a CulvertError 'ZDS_MALFORMED', or 'ZDS_NO_PAYLOAD' for a message whose kind is missing or unknown.
 */
export type ZdsCodecErrorCode = 'ZDS_MALFORMED' | 'ZDS_NO_PAYLOAD';

/** The only version there is. */
const ZDS_VERSION = 1;

export function encodeHello(): Uint8Array {
  return protobuf.Writer.create().uint32(tag(1, VARINT)).int32(ZDS_VERSION).finish();
}

/** Returns the version; 0 when the message does not say. */
export function decodeHello(packet: Uint8Array): number {
  return strictly(() => {
    let version = 0;
    readFields(packet, (field, reader, wireType) => {
      if (field !== 1) return false;
      version = varint(reader, wireType);
      return true;
    });
    return version;
  });
}

/** An acknowledgement. `error` is empty for success. Never zero bytes long: that would read as the end of the stream. */
export function encodeResponse(error: string): Uint8Array {
  const ack = error === '' ? EMPTY : protobuf.Writer.create().uint32(tag(1, BYTES)).string(error).finish();
  return protobuf.Writer.create().uint32(tag(1, BYTES)).bytes(ack).finish();
}

/** Returns the error of the acknowledgement, '' for success. */
export function decodeResponse(packet: Uint8Array): string {
  return strictly(() => {
    let error: string | null = null;
    readFields(packet, (field, reader, wireType) => {
      if (field !== 1) return false;
      error ??= '';
      const ack = bytes(reader, wireType);
      readFields(ack, (inner, innerReader, innerType) => {
        if (inner !== 1) return false;
        error = text(innerReader, innerType);
        return true;
      });
      return true;
    });
    if (error === null) throw noPayload();
    return error;
  });
}

export function encodeRequest(request: WorkloadRequest): Uint8Array {
  const writer = protobuf.Writer.create();
  switch (request.kind) {
    case 'add': {
      const add = protobuf.Writer.create();
      writeText(add, 1, request.uid);
      if (request.workload !== null) add.uint32(tag(2, BYTES)).bytes(encodeWorkloadInfo(request.workload));
      return writer.uint32(tag(REQUEST.add, BYTES)).bytes(add.finish()).finish();
    }
    case 'keep':
      return writer.uint32(tag(REQUEST.keep, BYTES)).bytes(encodeUid(KEEP_UID, request.uid)).finish();
    case 'del':
      return writer.uint32(tag(REQUEST.del, BYTES)).bytes(encodeUid(DEL_UID, request.uid)).finish();
    case 'snapshot-sent':
      return writer.uint32(tag(REQUEST.snapshotSent, BYTES)).bytes(EMPTY).finish();
  }
}

export function decodeRequest(packet: Uint8Array): WorkloadRequest {
  return strictly(() => {
    let request: WorkloadRequest | null = null;
    readFields(packet, (field, reader, wireType) => {
      switch (field) {
        case REQUEST.add:
          // A field that occurs twice is merged with itself, but replaces another member of the oneof.
          request = decodeAdd(bytes(reader, wireType), request?.kind === 'add' ? request : NO_ADD);
          return true;
        case REQUEST.del:
          request = { kind: 'del', uid: decodeUid(bytes(reader, wireType), DEL_UID) };
          return true;
        case REQUEST.snapshotSent:
          readFields(bytes(reader, wireType), () => false);
          request = { kind: 'snapshot-sent' };
          return true;
        case REQUEST.keep:
          request = { kind: 'keep', uid: decodeUid(bytes(reader, wireType), KEEP_UID) };
          return true;
        default:
          return false;
      }
    });
    if (request === null) throw noPayload();
    return request;
  });
}

const REQUEST = { add: 1, del: 2, snapshotSent: 3, keep: 5 } as const;
const KEEP_UID = 1;
const DEL_UID = 2;
const VARINT = 0;
const BYTES = 2;
const EMPTY = new Uint8Array(0);
const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

type AddRequest = Extract<WorkloadRequest, { kind: 'add' }>;
const NO_ADD: AddRequest = { kind: 'add', uid: '', workload: null };
const NO_INFO: WorkloadInfo = { name: '', namespace: '', serviceAccount: '' };

function encodeUid(field: number, uid: string): Uint8Array {
  const writer = protobuf.Writer.create();
  writeText(writer, field, uid);
  return writer.finish();
}

function encodeWorkloadInfo({ name, namespace, serviceAccount }: WorkloadInfo): Uint8Array {
  const writer = protobuf.Writer.create();
  writeText(writer, 1, name);
  writeText(writer, 2, namespace);
  writeText(writer, 3, serviceAccount);
  return writer.finish();
}

/** proto3 leaves out what is empty. */
function writeText(writer: protobuf.Writer, field: number, value: string): void {
  if (value !== '') writer.uint32(tag(field, BYTES)).string(value);
}

function decodeAdd(message: Uint8Array, seed: AddRequest): AddRequest {
  let { uid, workload } = seed;
  readFields(message, (field, reader, wireType) => {
    if (field === 1) uid = text(reader, wireType);
    else if (field === 2) workload = decodeWorkloadInfo(bytes(reader, wireType), workload ?? NO_INFO);
    else return false;
    return true;
  });
  return { kind: 'add', uid, workload };
}

function decodeWorkloadInfo(message: Uint8Array, seed: WorkloadInfo): WorkloadInfo {
  let { name, namespace, serviceAccount } = seed;
  readFields(message, (field, reader, wireType) => {
    if (field === 1) name = text(reader, wireType);
    else if (field === 2) namespace = text(reader, wireType);
    else if (field === 3) serviceAccount = text(reader, wireType);
    else return false;
    return true;
  });
  return { name, namespace, serviceAccount };
}

function decodeUid(message: Uint8Array, uidField: number): string {
  let uid = '';
  readFields(message, (field, reader, wireType) => {
    if (field !== uidField) return false;
    uid = text(reader, wireType);
    return true;
  });
  return uid;
}

/** Calls `read` for every field; it returns false for a field it does not know, which is then skipped. */
function readFields(
  message: Uint8Array,
  read: (field: number, reader: protobuf.Reader, wireType: number) => boolean,
): void {
  const reader = protobuf.Reader.create(message);
  while (reader.pos < reader.len) {
    const key = reader.uint32();
    const field = key >>> 3;
    if (field === 0) throw malformed('field number 0');
    if (!read(field, reader, key & 7)) reader.skipType(key & 7, 0, field);
  }
}

function varint(reader: protobuf.Reader, wireType: number): number {
  if (wireType !== VARINT) throw malformed(`wire type ${wireType} where a number belongs`);
  return reader.int32();
}

function bytes(reader: protobuf.Reader, wireType: number): Uint8Array {
  if (wireType !== BYTES) throw malformed(`wire type ${wireType} where text or a message belongs`);
  return reader.bytes();
}

function text(reader: protobuf.Reader, wireType: number): string {
  return UTF8.decode(bytes(reader, wireType));
}

function tag(field: number, wireType: number): number {
  return (field << 3) | wireType;
}

function strictly<T>(decode: () => T): T {
  try {
    return decode();
  } catch (cause) {
    throw cause instanceof CulvertError ? cause : malformed(messageOf(cause), cause);
  }
}

function malformed(what: string, cause?: unknown): CulvertError<ZdsCodecErrorCode> {
  return new CulvertError('ZDS_MALFORMED', `malformed ZDS message: ${what}`, { cause });
}

function noPayload(): CulvertError<ZdsCodecErrorCode> {
  return new CulvertError('ZDS_NO_PAYLOAD', 'no payload');
}
