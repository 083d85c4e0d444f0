/** DeltaDiscoveryRequest (envoy.service.discovery.v3), as it comes from a client that may say anything. */
import protobuf from 'protobufjs/minimal.js';
import { messageOf } from '../../errors.ts';
import { type Reader, readMessage, readText } from '../../xds/wire.ts';
import { refusal } from '../grpc/service.ts';

export interface ClientRequest {
  /** Null in all but the first request of a stream, mostly. */
  readonly node: SentNode | null;
  readonly typeUrl: string;
  readonly subscribe: readonly string[];
  readonly unsubscribe: readonly string[];
  /** What the client holds, name → version. */
  readonly initialVersions: ReadonlyMap<string, string>;
  readonly nonce: string;
  /** Why the client rejected the response of that nonce; null when it did not. */
  readonly error: string | null;
}

export interface SentNode {
  readonly id: string;
  /** Those entries of the metadata that are text. */
  readonly metadata: ReadonlyMap<string, string>;
}

/**
 * Reads a request; one of hundred thousands of names takes many steps.
 * @throws CulvertError INVALID_ARGUMENT
 */
export function* readRequest(bytes: Uint8Array): Generator<void, ClientRequest> {
  const reader = protobuf.Reader.create(bytes);
  const subscribe: string[] = [];
  const unsubscribe: string[] = [];
  const initialVersions = new Map<string, string>();
  let node: SentNode | null = null;
  let [typeUrl, nonce] = ['', ''];
  let error: string | null = null;
  for (let fields = 1; reader.pos < reader.len; fields++) {
    try {
      const key = reader.uint32();
      const [field, wireType] = [key >>> 3, key & 7];
      if (field === 0) throw new Error('field number 0');
      if (field === 1) node = readNode(reader, wireType);
      else if (field === 2) typeUrl = readText(reader, wireType);
      else if (field === 3) subscribe.push(readText(reader, wireType));
      else if (field === 4) unsubscribe.push(readText(reader, wireType));
      else if (field === 5) {
        const [name, version] = readTextEntry(reader, wireType);
        initialVersions.set(name, version);
      } else if (field === 6) nonce = readText(reader, wireType);
      else if (field === 7) error = readError(reader, wireType);
      else reader.skipType(wireType, 0, field);
    } catch (cause) {
      throw refusal('INVALID_ARGUMENT', `the request cannot be read: ${messageOf(cause)}`, cause);
    }
    if (fields % FIELDS_PER_STEP === 0) yield;
  }
  return { node, typeUrl, subscribe, unsubscribe, initialVersions, nonce, error };
}

function readNode(reader: Reader, wireType: number): SentNode {
  let id = '';
  const metadata = new Map<string, string>();
  readMessage(reader, wireType, (field, innerType) => {
    if (field === 1) id = readText(reader, innerType);
    else if (field === 3) {
      // google.protobuf.Struct
      readMessage(reader, innerType, (inner, entryType) => {
        if (inner !== 1) return false;
        const { key, value } = readStructEntry(reader, entryType);
        if (value !== null) metadata.set(key, value);
        return true;
      });
    } else return false;
    return true;
  });
  return { id, metadata };
}

/** An entry of a Struct; the value is null when it is not text. */
function readStructEntry(reader: Reader, wireType: number): { key: string; value: string | null } {
  let key = '';
  let value: string | null = null;
  readMessage(reader, wireType, (field, innerType) => {
    if (field === 1) key = readText(reader, innerType);
    else if (field === 2) {
      readMessage(reader, innerType, (inner, valueType) => {
        if (inner !== 3) return false;
        value = readText(reader, valueType);
        return true;
      });
    } else return false;
    return true;
  });
  return { key, value };
}

function readTextEntry(reader: Reader, wireType: number): [name: string, version: string] {
  let [name, version] = ['', ''];
  readMessage(reader, wireType, (field, innerType) => {
    if (field === 1) name = readText(reader, innerType);
    else if (field === 2) version = readText(reader, innerType);
    else return false;
    return true;
  });
  return [name, version];
}

/** The message of a google.rpc.Status. */
function readError(reader: Reader, wireType: number): string {
  let message = '';
  readMessage(reader, wireType, (field, innerType) => {
    if (field !== 2) return false;
    message = readText(reader, innerType);
    return true;
  });
  return message;
}

const FIELDS_PER_STEP = 256;
