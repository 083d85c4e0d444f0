/** What workloads and services have in common on the wire. */
import { ipFromBytes } from '../netns/address.ts';
import type { GatewayAddress, GatewayDestination } from '../state/types.ts';
import { type Reader, readBytes, readMessage, readNumber, readText } from './wire.ts';

export function readPort(reader: Reader, wireType: number, ports: Record<number, number>): void {
  let [service, target] = [0, 0];
  readMessage(reader, wireType, (field, innerType) => {
    if (field === 1) service = portOf(readNumber(reader, innerType));
    else if (field === 2) target = portOf(readNumber(reader, innerType));
    else return false;
    return true;
  });
  ports[service] = target;
}

export function readGateway(reader: Reader, wireType: number): GatewayAddress {
  let destination: GatewayDestination | null = null;
  let hboneMtlsPort = 0;
  readMessage(reader, wireType, (field, innerType) => {
    if (field === 1) destination = readNamespacedHostname(reader, innerType);
    else if (field === 2) {
      const { network, bytes } = readNetworkAddress(reader, innerType);
      destination = { kind: 'address', network, ip: ipOf(bytes) };
    } else if (field === 3) hboneMtlsPort = portOf(readNumber(reader, innerType));
    else return false;
    return true;
  });
  if (destination === null) throw new Error('a gateway without a destination');
  return { destination, hboneMtlsPort };
}

function readNamespacedHostname(reader: Reader, wireType: number): GatewayDestination {
  let [namespace, hostname] = ['', ''];
  readMessage(reader, wireType, (field, innerType) => {
    if (field === 1) namespace = readText(reader, innerType);
    else if (field === 2) hostname = readText(reader, innerType);
    else return false;
    return true;
  });
  return { kind: 'hostname', namespace, hostname };
}

/** `length` is null when it is not said. */
export function readNetworkAddress(reader: Reader, wireType: number) {
  let network = '';
  let bytes: Uint8Array = NOTHING;
  let length: number | null = null;
  readMessage(reader, wireType, (field, innerType) => {
    if (field === 1) network = readText(reader, innerType);
    else if (field === 2) bytes = readBytes(reader, innerType);
    else if (field === 3) length = readNumber(reader, innerType);
    else return false;
    return true;
  });
  return { network, bytes, length: length as number | null };
}

export function ipOf(bytes: Uint8Array, start = 0, end = bytes.length): string {
  const ip = ipFromBytes(bytes, start, end);
  if (ip === null) throw new Error(`failed to parse address, had ${end - start} bytes`);
  return ip;
}

export function portOf(port: number): number {
  if (port > 65535) throw new Error(`port ${port}`);
  return port;
}

/** The name of an enumeration value; it is not guessed what an unknown one means. */
export function named<const T>(names: readonly (T | undefined)[], value: number, what: string): T {
  const name = names[value];
  if (name === undefined) throw new Error(`unknown ${what} ${value}`);
  return name;
}

const NOTHING = new Uint8Array();
