/** The messages of delta ADS (envoy.service.discovery.v3): requests as bytes, and the resources of responses. */
import protobuf from 'protobufjs/minimal.js';
import { Repeated } from './repeated.ts';
import {
  BYTES,
  endOf,
  FIXED64,
  type Reader,
  readFields,
  readMessage,
  readText,
  tag,
  textUpTo,
  VARINT,
} from './wire.ts';

export const ADDRESS = 'type.googleapis.com/istio.workload.Address';
export const AUTHORIZATION = 'type.googleapis.com/istio.security.Authorization';
export type TypeUrl = typeof ADDRESS | typeof AUTHORIZATION;

/** Who asks; sent once per stream and type. */
export interface Node {
  readonly id: string;
  /** JSON values. */
  readonly metadata: Readonly<Record<string, unknown>>;
}

export interface DeltaRequest {
  readonly typeUrl: string;
  readonly node?: Node;
  readonly subscribe?: readonly string[];
  readonly unsubscribe?: readonly string[];
  readonly nonce?: string;
  /** Makes it a NACK. */
  readonly error?: string;
}

/** Encodes a DeltaDiscoveryRequest, all of it but `initial_resource_versions`, which can be appended. */
export function encodeRequest(request: DeltaRequest): Uint8Array {
  const writer = protobuf.Writer.create();
  if (request.node !== undefined) writer.uint32(tag(1, BYTES)).bytes(encodeNode(request.node));
  writer.uint32(tag(2, BYTES)).string(request.typeUrl);
  for (const name of request.subscribe ?? []) writer.uint32(tag(3, BYTES)).string(name);
  for (const name of request.unsubscribe ?? []) writer.uint32(tag(4, BYTES)).string(name);
  if (request.nonce !== undefined) writer.uint32(tag(6, BYTES)).string(request.nonce);
  if (request.error !== undefined) {
    const status = protobuf.Writer.create().uint32(tag(2, BYTES)).string(request.error).finish();
    writer.uint32(tag(7, BYTES)).bytes(status);
  }
  return writer.finish();
}

/** Entries of `initial_resource_versions`, to be appended to a request. */
export function encodeVersions(versions: Iterable<readonly [name: string, version: string]>): Uint8Array {
  const writer = protobuf.Writer.create();
  for (const [name, version] of versions) {
    writer
      .uint32(tag(5, BYTES))
      .fork()
      .uint32(tag(1, BYTES))
      .string(name)
      .uint32(tag(2, BYTES))
      .string(version)
      .ldelim();
  }
  return writer.finish();
}

function encodeNode({ id, metadata }: Node): Uint8Array {
  return protobuf.Writer.create()
    .uint32(tag(1, BYTES))
    .string(id)
    .uint32(tag(3, BYTES))
    .bytes(encodeStruct(metadata))
    .finish();
}

/** google.protobuf.Struct */
function encodeStruct(values: Readonly<Record<string, unknown>>): Uint8Array {
  const writer = protobuf.Writer.create();
  for (const [key, value] of Object.entries(values)) {
    writer.uint32(tag(1, BYTES)).fork().uint32(tag(1, BYTES)).string(key);
    writer.uint32(tag(2, BYTES)).bytes(encodeValue(value)).ldelim();
  }
  return writer.finish();
}

/** google.protobuf.Value */
function encodeValue(value: unknown): Uint8Array {
  const writer = protobuf.Writer.create();
  if (typeof value === 'number') writer.uint32(tag(2, FIXED64)).double(value);
  else if (typeof value === 'string') writer.uint32(tag(3, BYTES)).string(value);
  else if (typeof value === 'boolean') writer.uint32(tag(4, VARINT)).bool(value);
  else if (Array.isArray(value)) {
    const list = protobuf.Writer.create();
    for (const item of value) list.uint32(tag(1, BYTES)).bytes(encodeValue(item));
    writer.uint32(tag(6, BYTES)).bytes(list.finish());
  } else if (typeof value === 'object' && value !== null) {
    writer.uint32(tag(5, BYTES)).bytes(encodeStruct(value as Record<string, unknown>));
  } else writer.uint32(tag(1, VARINT)).uint32(0);
  return writer.finish();
}

/** Fields of a DeltaDiscoveryResponse. */
export const RESPONSE = { resource: 2, typeUrl: 4, nonce: 5, removed: 6 } as const;

/** A resource of a response before its content is read. */
export interface EncodedResource {
  readonly name: string;
  readonly version: string;
  /** Further names of it: `network/ip` where it was asked for by address. */
  readonly aliases: readonly string[];
  readonly typeUrl: string;
  /** The content is the reader's bytes from `start` to `end`. */
  readonly start: number;
  readonly end: number;
}

/** Reads a Resource up to `end`, where the reader is then. */
export function readResource(reader: Reader, end: number): EncodedResource {
  current = { name: '', version: '', aliases: [], typeUrl: '', start: end, end };
  readFields(reader, end, readResourceField);
  return current;
}

/** Nearly always the same one. */
const TYPE_URLS = new Repeated(textUpTo);

/** What is being read: functions that hold it would be made anew for each of hundreds of thousands. */
let current: { -readonly [Key in keyof EncodedResource]: EncodedResource[Key] };

function readResourceField(field: number, wireType: number, reader: Reader): boolean {
  if (field === 1) current.version = readText(reader, wireType);
  else if (field === 2) readMessage(reader, wireType, readAnyField);
  else if (field === 3) current.name = readText(reader, wireType);
  else if (field === 4) (current.aliases as string[]).push(readText(reader, wireType));
  else return false;
  return true;
}

function readAnyField(field: number, wireType: number, reader: Reader): boolean {
  if (field === 1) {
    current.typeUrl = TYPE_URLS.take(reader, endOf(reader, wireType));
  } else if (field === 2) {
    current.end = endOf(reader, wireType);
    current.start = reader.pos;
    reader.pos = current.end;
  } else return false;
  return true;
}
