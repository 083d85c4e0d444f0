import type { Client, Metadata, ServiceError } from '@grpc/grpc-js';
import { type ControlPlaneServer, openChannel, readRoots, requestMetadata } from '../control-plane/grpc.ts';
import { CulvertError, messageOf } from '../errors.ts';
import { type AgentAccount, explainCaFailure } from './ca-failure.ts';
import { decodeCertificateResponse, encodeCertificateRequest } from './ca-messages.ts';
import type { CertificateAuthorityClient } from './certificate.ts';
import { readIssuedChain } from './issued-chain.ts';
import { toPem } from './pem.ts';
import { signCertificateRequest } from './signing.ts';
import { parseSpiffeId } from './spiffe.ts';
import { generateWorkloadKey } from './workload-key.ts';

export interface IstioCaOptions {
  readonly server: ControlPlaneServer;
  /** Validity that is asked for, in ms. */
  readonly ttl: number;
  readonly account: AgentAccount;
  readonly log: { warn(target: string, message: string, fields?: Record<string, string>): void };
  /** ms since 1970 */
  readonly now?: () => number;
  /** How long a request may take, connecting included, in ms. */
  readonly patience?: number;
}

/** A little less than the manager waits, so that what it hears says more than that time is up. */
const PATIENCE_MS = 9_500;

const METHOD = '/istio.v1.auth.IstioCertificateService/CreateCertificate';

/**
 * The CA of a control plane (§8.3): asks in the agent's own name for the certificates of the node's pods. The channel is
 * opened at once and kept, so that a certificate costs one round trip.
 * @throws CulvertError ROOTS_UNUSABLE; `sign` rejects with that, with TOKEN_UNUSABLE, HEADER_UNUSABLE, IDENTITY_INVALID,
 * CA_ANSWER_INVALID and the codes of `explainCaFailure`
 */
export async function openIstioCa(options: IstioCaOptions): Promise<CertificateAuthorityClient> {
  const { server, ttl, account, log, now = Date.now, patience = PATIENCE_MS } = options;
  let channel = await connect(await readRoots(server));
  let closed = false;
  let looking: Promise<void> | null = null;

  /** A channel under the roots of this moment. Requests that come at once look at them together, so none brings back older ones. */
  async function currentChannel(): Promise<Connection> {
    looking ??= look().finally(() => {
      looking = null;
    });
    await looking;
    return channel;
  }

  async function look(): Promise<void> {
    let { rootsPem } = channel;
    try {
      rootsPem = await readRoots(server);
    } catch (error) {
      // Of a file that cannot be read now, the last good state counts.
      log.warn(TARGET, 'the roots of the CA server cannot be read again, those of before stay in use', {
        error: messageOf(error),
      });
    }
    if (closed || (rootsPem === channel.rootsPem && !channel.broken)) return;
    const fresh = await connect(rootsPem);
    const unused = closed ? fresh : channel;
    if (!closed) channel = fresh;
    unused.client.close();
  }

  async function connect(rootsPem: string): Promise<Connection> {
    const client = await openChannel(server, rootsPem, {
      // The next pod must not pay for a handshake.
      'grpc.client_idle_timeout_ms': 0x7fff_ffff,
    });
    const fresh: Connection = { client, rootsPem, broken: false };
    stayConnected(client);
    return fresh;
  }

  async function request(message: Buffer): Promise<string[]> {
    const connection = await currentChannel();
    const metadata = await requestMetadata(server);
    try {
      return decodeCertificateResponse(await call(connection.client, message, metadata, patience));
    } catch (error) {
      const { code, details } = error as Partial<ServiceError>;
      if (code === undefined)
        throw new CulvertError('CA_ANSWER_INVALID', `the answer of the CA cannot be read: ${messageOf(error)}`, {
          cause: error,
        });
      const connected = connection.client.getChannel().getConnectivityState(false) === READY;
      // A channel of its own accord waits ever longer before it connects again, and does not notice a path that has died.
      // When to ask again is the manager's decision alone.
      if (code === UNAVAILABLE || code === DEADLINE_EXCEEDED) connection.broken = true;
      const token = String(metadata.get('authorization')[0] ?? '').replace(/^Bearer /, '') || null;
      throw explainCaFailure(server, account, { code, details: details ?? '', connected, token, now: now(), patience });
    }
  }

  return {
    name: server.address,
    async sign(identity) {
      parseSpiffeId(identity);
      const { privateKey, publicKey } = await generateWorkloadKey();
      const csr = await signCertificateRequest(privateKey, identity, publicKey);
      const answer = await request(
        encodeCertificateRequest({
          csr: toPem('CERTIFICATE REQUEST', csr),
          validitySeconds: Math.ceil(ttl / 1000),
          impersonatedIdentity: identity,
        }),
      );
      const { skippedRoots, ...issued } = readIssuedChain(answer, identity, publicKey);
      if (skippedRoots > 0) log.warn(TARGET, `${skippedRoots} roots of the CA cannot be read and are left out`);
      return { identity, privateKey, ...issued };
    },
    close() {
      closed = true;
      channel.client.close();
    },
  };
}

const TARGET = 'identity::ca';

interface Connection {
  readonly client: Client;
  /** What the server is verified against. */
  readonly rootsPem: string;
  /** To be replaced before the next request. */
  broken: boolean;
}

// grpc.connectivityState and grpc.status; the library is loaded elsewhere.
const READY = 2;
const SHUTDOWN = 4;
const DEADLINE_EXCEEDED = 4;
const UNAVAILABLE = 14;

/** Connects, and again whenever the server has ended the connection, as istiod does every half hour. */
function stayConnected(client: Client): void {
  const channel = client.getChannel();
  const look = () => {
    // To ask a closed channel to connect revives it, for ever.
    if (channel.getConnectivityState(false) === SHUTDOWN) return;
    const state = channel.getConnectivityState(true);
    channel.watchConnectivityState(state, Number.POSITIVE_INFINITY, (error) => {
      if (error === undefined || error === null) look();
    });
  };
  look();
}

function call(client: Client, message: Buffer, metadata: Metadata, patience: number): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(
      METHOD,
      (bytes: Buffer) => bytes,
      (bytes: Buffer) => bytes,
      message,
      metadata,
      { deadline: Date.now() + patience },
      (error, answer) => {
        if (error !== null || answer === undefined) reject(error ?? new Error('no message'));
        else resolve(answer);
      },
    );
  });
}
