/** What a port speaks, by what is said of it (control-01 §4.3). */
import type { ServicePort } from '../objects/service.ts';
import type { AppProtocol } from './messages.ts';

export function appProtocolOf({ name, protocol, appProtocol, port }: ServicePort): AppProtocol {
  if (protocol === 'UDP') return 'unknown';
  const text = appProtocol === '' ? name : (KUBERNETES.get(appProtocol) ?? appProtocol);
  const lower = text.toLowerCase();
  if (lower.startsWith('grpc-web')) return 'unknown';
  const known = NAMES.get(lower.split('-', 1)[0]!);
  return known ?? (SERVER_FIRST.includes(port) ? 'tcp' : 'unknown');
}

/** Of a ServiceEntry's port, which says it outright. */
export function protocolOf(protocol: string): AppProtocol {
  return NAMES.get(protocol.toLowerCase()) ?? 'unknown';
}

const KUBERNETES = new Map([
  ['kubernetes.io/h2c', 'http2'],
  ['kubernetes.io/ws', 'http'],
  ['kubernetes.io/wss', 'https'],
]);

const NAMES = new Map<string, AppProtocol>([
  ['http', 'http11'],
  ['http2', 'http2'],
  ['grpc', 'grpc'],
  ['tcp', 'tcp'],
  ['tls', 'tls'],
  ['https', 'tls'],
]);

/** Ports of protocols whose server speaks first: looking for HTTP would hang. */
const SERVER_FIRST = [25, 53, 3306, 27017];
