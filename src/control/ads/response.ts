/**
 * DeltaDiscoveryResponse (envoy.service.discovery.v3) as bytes of the wire, in pieces of some 64 KiB. Each piece is encoded
 * when a client takes it, and kept for others that are sent the same response.
 */
import { randomUUID } from 'node:crypto';
import protobuf from 'protobufjs/minimal.js';
import { RESPONSE } from '../../xds/delta.ts';
import { BYTES, tag } from '../../xds/wire.ts';
import { framePrefix, PREFIX_LENGTH } from '../grpc/service.ts';
import type { Resource } from '../resources.ts';
import type { ServedType } from './types.ts';

export interface Response {
  readonly nonce: string;
  readonly version: string;
  readonly resources: number;
  readonly removed: number;
  /** Length of the message, prefix excluded. */
  readonly bytes: number;
  /** The message with its prefix. */
  parts(): Iterable<Uint8Array>;
  /** Keeps no pieces any more; who is still being sent it gets them encoded anew. */
  release(): void;
}

export interface ResponseContent {
  readonly type: ServedType;
  /** Of the state that it is made from; the nonce begins with it (control-01 §7.1). */
  readonly version: string;
  /** Each of the type, see `ServedType.value`. */
  readonly resources: readonly Resource[];
  /** Further names of resources, for clients that ask by name; null for others. */
  readonly aliases: ReadonlyMap<string, readonly string[]> | null;
  readonly removed: readonly string[];
  /** Whether pieces are kept for further clients. */
  readonly shared: boolean;
}

/** Measures the response, with a step for every thousand of its fields. */
export function* prepareResponse(content: ResponseContent): Generator<void, Response> {
  const { type, version, resources, aliases, removed, shared } = content;
  const nonce = version + randomUUID();
  const anyType = textField(FIELD.anyType, type.url);
  const head = Buffer.concat([
    textField(FIELD.version, version),
    textField(FIELD.typeUrl, type.url),
    textField(FIELD.nonce, nonce),
  ]);
  /** Resources, then names of removed ones. */
  const fields = resources.length + removed.length;
  /** Of each piece: its first field, and its length. */
  const starts = [0];
  const lengths = [PREFIX_LENGTH + head.length];
  let bytes = head.length;
  for (let field = 0; field < fields; field++) {
    if (field % FIELDS_PER_STEP === FIELDS_PER_STEP - 1) yield;
    const length = lengthOf(field);
    bytes += length;
    if (lengths.at(-1)! + length > PIECE) {
      starts.push(field);
      lengths.push(0);
    }
    lengths[lengths.length - 1]! += length;
  }

  const kept: Uint8Array[] = [];
  let isKept = shared;

  function sent(resource: Resource): SentResource {
    const value = type.value(resource.body) ?? NOTHING;
    return { resource, value, anyType, aliases: aliases?.get(resource.name) ?? NONE };
  }

  function lengthOf(field: number): number {
    if (field >= resources.length) return textLength(removed[field - resources.length]!);
    return fieldLength(resourceLength(sent(resources[field]!)));
  }

  function encode(index: number): Uint8Array {
    const piece = new Piece(lengths[index]!);
    if (index === 0) piece.head(bytes, head);
    const end = starts[index + 1] ?? fields;
    for (let field = starts[index]!; field < end; field++) {
      if (field < resources.length) piece.resource(sent(resources[field]!));
      else piece.text(FIELD.removed, removed[field - resources.length]!);
    }
    if (isKept) kept[index] = piece.bytes;
    return piece.bytes;
  }

  return {
    nonce,
    version,
    resources: resources.length,
    removed: removed.length,
    bytes,
    *parts() {
      for (let index = 0; index < starts.length; index++) yield kept[index] ?? encode(index);
    },
    release() {
      isKept = false;
      kept.length = 0;
    },
  };
}

interface SentResource {
  readonly resource: Resource;
  readonly value: Uint8Array;
  readonly anyType: Uint8Array;
  readonly aliases: readonly string[];
}

const NOTHING = new Uint8Array(0);
const NONE: readonly string[] = [];

class Piece {
  readonly bytes: Buffer;
  #at = 0;

  constructor(length: number) {
    this.bytes = Buffer.allocUnsafe(length);
  }

  /** The prefix of the gRPC message, and its first fields. */
  head(messageLength: number, fields: Uint8Array): void {
    this.#put(framePrefix(messageLength));
    this.#put(fields);
  }

  resource(sent: SentResource): void {
    const { resource, value, anyType, aliases } = sent;
    this.#tag(FIELD.resources, resourceLength(sent));
    if (resource.version !== '') this.text(FIELD.resourceVersion, resource.version);
    this.#tag(FIELD.resourceAny, anyType.length + fieldLength(value.length));
    this.#put(anyType);
    this.#tag(FIELD.anyValue, value.length);
    this.#put(value);
    this.text(FIELD.resourceName, resource.name);
    for (const alias of aliases) this.text(FIELD.resourceAlias, alias);
  }

  text(field: number, text: string): void {
    const length = Buffer.byteLength(text);
    this.#tag(field, length);
    this.bytes.write(text, this.#at, length === text.length ? 'latin1' : 'utf8');
    this.#at += length;
  }

  /** Tag and length. Field numbers are below 16. */
  #tag(field: number, length: number): void {
    this.bytes[this.#at++] = tag(field, BYTES);
    let rest = length;
    for (; rest > 0x7f; rest >>>= 7) this.bytes[this.#at++] = (rest & 0x7f) | 0x80;
    this.bytes[this.#at++] = rest;
  }

  #put(bytes: Uint8Array): void {
    this.bytes.set(bytes, this.#at);
    this.#at += bytes.length;
  }
}

function resourceLength({ resource, value, anyType, aliases }: SentResource): number {
  let length = fieldLength(anyType.length + fieldLength(value.length)) + textLength(resource.name);
  if (resource.version !== '') length += textLength(resource.version);
  for (const alias of aliases) length += textLength(alias);
  return length;
}

function textLength(text: string): number {
  return fieldLength(Buffer.byteLength(text));
}

/** Of a field with so many bytes, tag and length included. */
function fieldLength(length: number): number {
  let size = length + 2;
  for (let rest = length; rest > 0x7f; rest >>>= 7) size++;
  return size;
}

function textField(field: number, text: string): Uint8Array {
  return protobuf.Writer.create().uint32(tag(field, BYTES)).string(text).finish();
}

/** Field numbers of DeltaDiscoveryResponse, of Resource in it and of Any in that. */
const FIELD = {
  version: 1,
  resources: RESPONSE.resource,
  typeUrl: RESPONSE.typeUrl,
  nonce: RESPONSE.nonce,
  removed: RESPONSE.removed,
  resourceVersion: 1,
  resourceAny: 2,
  resourceName: 3,
  resourceAlias: 4,
  anyType: 1,
  anyValue: 2,
} as const;

/** What is held for a client that is slow, and what is encoded and encrypted in one turn. */
const PIECE = 64 * 1024;
const FIELDS_PER_STEP = 1000;
