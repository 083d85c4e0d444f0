import { expiryOf, headerSecrets, placeOf, printable, rootsOf, tokenOf } from '../control-plane/failure.ts';
import type { ControlPlaneServer } from '../control-plane/grpc.ts';
import { STATUS } from '../control-plane/status.ts';
import { CulvertError, messageOf } from '../errors.ts';
import type { StreamEnd } from './grpc-stream.ts';

/** How a stream came to its end, for metrics and for what follows. */
export type Termination =
  /** No connection. */
  | 'ConnectionError'
  /** The server refused, or something broke. */
  | 'Error'
  /** The server wants the client to come again: it restarts, or the stream has lasted its time. */
  | 'Reconnect'
  /** The server ended the stream in order. */
  | 'Complete';

/** The names are those of the incumbent's metric (spec §9.5, §12.3). */
export function terminationOf(end: StreamEnd): Termination {
  if (end.kind === 'connection') return 'ConnectionError';
  if (end.code === 0) return 'Complete';
  return RETRYABLE.has(end.code) && /transport is closing|received prior goaway|call was reset/i.test(end.message)
    ? 'Reconnect'
    : 'Error';
}

const RETRYABLE: ReadonlySet<number> = new Set([
  STATUS.UNKNOWN,
  STATUS.CANCELLED,
  STATUS.DEADLINE_EXCEEDED,
  STATUS.UNAVAILABLE,
]);

/** Equal for ends of one kind, whatever numbers and times their sentences have in them. */
export function kindOf(end: StreamEnd): string {
  if (end.kind === 'status') return `status ${end.code}`;
  return `connection ${codeOf(end.error) || end.error.message}`;
}

/** One sentence that says what is wrong between this agent and the control plane and what to do about it. */
export function explain(end: StreamEnd, server: ControlPlaneServer, token: string | null, now: number): string {
  const where = placeOf(server);
  if (end.kind === 'connection') return explainConnection(end.error, server, where, now);
  const said = printable(end.message, token, ...headerSecrets(server));
  return `${explainStatus(end.code, server, where, token, now)}${said === '' ? '' : ` (${said})`}`;
}

function explainConnection(error: Error, server: ControlPlaneServer, where: string, now: number): string {
  // Roots and token are read here; their errors are sentences already.
  if (error instanceof CulvertError && !CONNECTION_CODES.has(error.code)) return error.message;
  const code = codeOf(error);
  const clock = `this node's clock says ${new Date(now).toISOString()}`;
  const detail = ` (${printable(reasonOf(error) || code)})`;
  switch (code) {
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return `the name of the control plane, ${where}, cannot be resolved: check XDS_ADDRESS, and that this pod can use the cluster's DNS${detail}`;
    case 'ECONNREFUSED':
      return `nothing listens at the control plane's address ${where}: check XDS_ADDRESS, and that istiod is running${detail}`;
    case 'EHOSTUNREACH':
    case 'ENETUNREACH':
    case 'ETIMEDOUT':
    case 'TIMEOUT':
      return `the control plane at ${where} does not answer: a NetworkPolicy, firewall or missing route may be in the way, or it is overloaded${detail}`;
    case 'ERR_TLS_CERT_ALTNAME_INVALID':
      return `the server at ${where} shows a certificate for other names: if it is the right one, set ALT_XDS_HOSTNAME to a name in its certificate${detail}`;
    case 'CERT_NOT_YET_VALID':
      return `the certificate of the control plane at ${where} is not valid yet, and ${clock}: check the clocks of both${detail}`;
    case 'CERT_HAS_EXPIRED':
      return `the certificate of the control plane at ${where} has expired, and ${clock}: if that is right, the server needs a new one${detail}`;
    case 'NOT_HTTP2':
    case 'ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL':
      return `the server at ${where} does not speak HTTP/2: check that XDS_ADDRESS names the control plane (port 15012 of istiod)`;
    case 'CONNECTION_LOST':
    case 'ECONNRESET':
    case 'EPIPE':
      return `the connection to the control plane at ${where} was closed by the other side: it may be restarting, or something between closes it${detail}`;
  }
  if (TRUST_CODES.has(code)) {
    return `the control plane at ${where} is not trusted: its certificate is not signed by a root of ${rootsOf(server)}, which may be of another mesh or out of date${detail}`;
  }
  if (/^ERR_SSL_(?:WRONG_VERSION_NUMBER|PACKET_LENGTH_TOO_LONG|UNEXPECTED_MESSAGE)$/.test(code)) {
    return `the server at ${where} does not speak TLS: XDS_ADDRESS has to name the secure port (15012 of istiod), not the plain one${detail}`;
  }
  return `no connection to the control plane at ${where}${detail}`;
}

function explainStatus(
  code: number,
  server: ControlPlaneServer,
  where: string,
  token: string | null,
  now: number,
): string {
  switch (code) {
    case 0:
    case STATUS.CANCELLED:
      return `the control plane at ${where} ended the stream`;
    case STATUS.UNAUTHENTICATED: {
      if (token === null) {
        return `the control plane at ${where} does not know who asks, as no token was sent: set AUTH_TOKEN, or mount a token with audience istio-ca at ./var/run/secrets/tokens/istio-token`;
      }
      const expiry = expiryOf(token);
      return expiry !== null && expiry <= now
        ? `the control plane at ${where} refused ${tokenOf(server)}, which expired at ${new Date(expiry).toISOString()}: it has to be a projected volume, which the kubelet renews`
        : `the control plane at ${where} refused ${tokenOf(server)}: its audience has to be one that istiod accepts (istio-ca), and CLUSTER_ID (${server.clusterId}) a cluster that it knows`;
    }
    case STATUS.PERMISSION_DENIED:
      return `the control plane at ${where} does not let this agent have mesh state: POD_NAMESPACE has to be the namespace of the service account that ${tokenOf(server)} was made for`;
    case STATUS.UNIMPLEMENTED:
      return `the server at ${where} has no delta ADS: check that XDS_ADDRESS names the control plane (port 15012 of istiod), and that istiod has PILOT_ENABLE_AMBIENT=true`;
    case STATUS.RESOURCE_EXHAUSTED:
      return `the control plane at ${where} is at its limit: it admits this agent later, or the request was longer than its ISTIO_GPRC_MAXRECVMSGSIZE`;
    case STATUS.INVALID_ARGUMENT:
      return `the control plane at ${where} does not understand this agent: it may be of a version that does not fit`;
    case STATUS.INTERNAL:
      return `what the server at ${where} sends cannot be read`;
    case STATUS.UNAVAILABLE:
      return `the control plane at ${where} is not available: it may be starting, restarting or overloaded`;
    default:
      return `the control plane at ${where} ended the stream with gRPC status ${code}; its own log says why`;
  }
}

/** The code of an error, or of the last of several attempts. */
function codeOf(error: Error): string {
  const { code, errors } = error as Error & { code?: unknown; errors?: unknown };
  if (Array.isArray(errors) && errors.length > 0) return codeOf(errors.at(-1) as Error);
  return typeof code === 'string' ? code : '';
}

/** The text of an error; of OpenSSL's only what is not about its own source. */
function reasonOf(error: Error & { reason?: unknown }): string {
  return typeof error.reason === 'string' ? error.reason : messageOf(error);
}

const CONNECTION_CODES: ReadonlySet<string> = new Set(['TIMEOUT', 'NOT_HTTP2', 'CONNECTION_LOST']);

/** OpenSSL's verdicts on a chain. */
const TRUST_CODES: ReadonlySet<string> = new Set([
  'SELF_SIGNED_CERT_IN_CHAIN',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'CERT_SIGNATURE_FAILURE',
  'CERT_UNTRUSTED',
  'INVALID_CA',
]);
