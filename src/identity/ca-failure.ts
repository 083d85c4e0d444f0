import { expiryOf, headerSecrets, placeOf, printable, rootsOf, tokenOf } from '../control-plane/failure.ts';
import type { ControlPlaneServer } from '../control-plane/grpc.ts';
import { STATUS } from '../control-plane/status.ts';
import { CulvertError } from '../errors.ts';

/** What is known of a request that a remote CA did not fulfil. */
export interface CaFailure {
  /** gRPC status. */
  readonly code: number;
  /** Its text, from the library or from the server. */
  readonly details: string;
  /** Whether a connection to the server was there. */
  readonly connected: boolean;
  /** The token that was sent; it is read for its expiry, never shown. */
  readonly token: string | null;
  /** ms since 1970. */
  readonly now: number;
  /** How long was waited, in ms. */
  readonly patience: number;
}

/** The agent's own pod, for what an operator has to permit. */
export interface AgentAccount {
  readonly namespace: string;
  readonly serviceAccount: string;
}

/**
 * Why there is no certificate, as a sentence that says what to do. Its `code` is one of CA_UNREACHABLE, CA_SLOW,
 * CA_SERVER_NOT_TRUSTED, CA_TOKEN_REFUSED, CA_IMPERSONATION_REFUSED, CA_REFUSED, CA_FAILED.
 */
export function explainCaFailure(server: ControlPlaneServer, account: AgentAccount, failure: CaFailure): CulvertError {
  const raw = failure.details.replace(LIBRARY_PHRASES, '');
  const details = printable(raw, failure.token, ...headerSecrets(server));
  // A header may have the very word that tells cases apart.
  const unmasked = printable(raw);
  const where = placeOf(server);
  const unreached =
    !failure.connected && (failure.code === STATUS.UNAVAILABLE || failure.code === STATUS.DEADLINE_EXCEEDED);
  for (const { when, code, text } of unreached ? OBSTACLES : ANSWERS) {
    const match = when(failure, unmasked);
    if (match === null) continue;
    return new CulvertError(code, `${text({ server, account, failure, details, where })}${said(details)}`);
  }
  return new CulvertError('CA_FAILED', `the CA at ${where} did not issue the certificate${said(details)}`);
}

interface Case {
  /** Null when this is not it. @param unmasked the details, for the choice alone: there may be secrets in them */
  when(failure: CaFailure, unmasked: string): RegExpExecArray | true | null;
  readonly code: string;
  text(known: Known): string;
}

interface Known {
  readonly server: ControlPlaneServer;
  readonly account: AgentAccount;
  readonly failure: CaFailure;
  readonly details: string;
  readonly where: string;
}

const says = (pattern: RegExp) => (_: CaFailure, unmasked: string) => pattern.exec(unmasked);
const otherwise = () => true as const;
const status =
  (...codes: number[]) =>
  ({ code }: CaFailure) =>
    codes.includes(code) ? (true as const) : null;

/** Why no connection was made: TCP and TLS, told apart by the words of Node and OpenSSL. */
const OBSTACLES: readonly Case[] = [
  {
    when: says(/ENOTFOUND|EAI_AGAIN|Name resolution failed/i),
    code: 'CA_UNREACHABLE',
    text: ({ where }) =>
      `the name of the CA, ${where}, cannot be resolved: check CA_ADDRESS, and that this node's pods can use the cluster's DNS`,
  },
  {
    when: says(/ECONNREFUSED/),
    code: 'CA_UNREACHABLE',
    text: ({ where }) => `nothing listens at the CA's address ${where}: check CA_ADDRESS, and that istiod is running`,
  },
  {
    when: says(/EHOSTUNREACH|ENETUNREACH|ETIMEDOUT/),
    code: 'CA_UNREACHABLE',
    text: ({ where }) =>
      `the CA at ${where} cannot be reached from this node: a NetworkPolicy, firewall or missing route may be in the way`,
  },
  {
    when: says(/altnames|altname|Hostname\/IP does not match/i),
    code: 'CA_SERVER_NOT_TRUSTED',
    text: ({ where }) =>
      `the server at ${where} shows a certificate for other names: if it is the right one, set ALT_CA_HOSTNAME to a name in its certificate`,
  },
  {
    when: says(/not yet valid|CERT_NOT_YET_VALID/i),
    code: 'CA_SERVER_NOT_TRUSTED',
    text: ({ where, failure }) =>
      `the certificate of the CA server ${where} is not valid yet; this node's clock says ${iso(failure.now)}: check the clocks of both`,
  },
  {
    when: says(/certificate has expired|CERT_HAS_EXPIRED/i),
    code: 'CA_SERVER_NOT_TRUSTED',
    text: ({ where, failure }) =>
      `the certificate of the CA server ${where} has expired; this node's clock says ${iso(failure.now)}: if that is right, the server needs a new certificate`,
  },
  {
    when: says(/self[- ]signed|unable to (get|verify)|issuer certificate|certificate signature failure/i),
    code: 'CA_SERVER_NOT_TRUSTED',
    text: ({ where, server }) =>
      `the CA server ${where} is not trusted: its certificate is not signed by a root of ${rootsOf(server)}, which may be of another mesh or out of date`,
  },
  {
    when: says(/wrong version number|packet length too long|unknown protocol/i),
    code: 'CA_UNREACHABLE',
    text: ({ where }) =>
      `the server at ${where} does not speak TLS: CA_ADDRESS has to name the secure port (15012 of istiod), not the plain one`,
  },
  {
    when: status(STATUS.DEADLINE_EXCEEDED),
    code: 'CA_UNREACHABLE',
    text: ({ where, failure }) =>
      `no connection to the CA at ${where} within ${failure.patience / 1000} s: a NetworkPolicy or firewall may be blocking its port, or it is overloaded`,
  },
  {
    when: status(STATUS.UNAVAILABLE),
    code: 'CA_UNREACHABLE',
    text: ({ where }) => `no connection to the CA at ${where}`,
  },
];

/** What the server answered, or did not. */
const ANSWERS: readonly Case[] = [
  {
    when: status(STATUS.DEADLINE_EXCEEDED),
    code: 'CA_SLOW',
    text: ({ where, failure }) =>
      `the CA at ${where} is connected but did not answer within ${failure.patience / 1000} s: it may be overloaded`,
  },
  {
    when: says(/impersonat/i),
    code: 'CA_IMPERSONATION_REFUSED',
    text: ({ account }) =>
      `the CA does not let this agent ask for the certificates of pods: ${agent(account)} has to be in its CA_TRUSTED_NODE_ACCOUNTS, and the CA has to know a pod of that identity on this node (right after a pod is scheduled it may not yet)`,
  },
  {
    when: ({ code, token }) => (code === STATUS.UNAUTHENTICATED && token === null ? true : null),
    code: 'CA_TOKEN_REFUSED',
    text: () =>
      'the CA does not know who asks, as no token was sent: set AUTH_TOKEN, or mount a token with audience istio-ca at ./var/run/secrets/tokens/istio-token',
  },
  {
    when: ({ code, token, now }) =>
      code === STATUS.UNAUTHENTICATED && (expiryOf(token) ?? now + 1) <= now ? true : null,
    code: 'CA_TOKEN_REFUSED',
    text: ({ server, failure }) =>
      `the CA refused the token: ${tokenOf(server)} expired at ${iso(expiryOf(failure.token)!)} and this node's clock says ${iso(failure.now)}; ${
        server.token.kind === 'file'
          ? 'the kubelet should have replaced the file: check that it is mounted as a projected volume'
          : 'give AUTH_TOKEN a new one, or the path of a file that is kept up to date'
      }`,
  },
  {
    when: status(STATUS.UNAUTHENTICATED, STATUS.PERMISSION_DENIED),
    code: 'CA_TOKEN_REFUSED',
    text: ({ server, account }) =>
      `the CA refused the token: ${tokenOf(server)} has to be of ${agent(account)}, for audience istio-ca, and of the cluster ${JSON.stringify(server.clusterId)} as the CA knows it (CLUSTER_ID)`,
  },
  {
    when: status(STATUS.INVALID_ARGUMENT),
    code: 'CA_REFUSED',
    text: () => 'the CA refused the request as invalid: SECRET_TTL may be more than its MAX_WORKLOAD_CERT_TTL',
  },
  {
    when: status(STATUS.RESOURCE_EXHAUSTED),
    code: 'CA_REFUSED',
    text: () => 'the CA refuses requests because it has too many',
  },
  {
    when: status(STATUS.UNIMPLEMENTED),
    code: 'CA_REFUSED',
    text: ({ where }) => `the server at ${where} is not a CA of istio's kind: check CA_ADDRESS`,
  },
  {
    when: status(STATUS.UNAVAILABLE),
    code: 'CA_UNREACHABLE',
    text: ({ where }) => `the connection to the CA at ${where} was lost, or it is shutting down`,
  },
  {
    when: otherwise,
    code: 'CA_FAILED',
    text: ({ where, failure }) =>
      `the CA at ${where} did not issue the certificate (gRPC status ${failure.code}); its own log says why`,
  },
];

/** What the library wraps the reason in. */
const LIBRARY_PHRASES = /^No connection established\. Last error: (Error: )?|\. Resolution note:\s*$/g;

function said(details: string): string {
  return details === '' ? '' : ` (${details})`;
}

function agent({ namespace, serviceAccount }: AgentAccount): string {
  return namespace === '' || serviceAccount === ''
    ? 'the service account of this agent'
    : `the service account of this agent (${namespace}/${serviceAccount})`;
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
