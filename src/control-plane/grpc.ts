/**
 * What the clients of a control plane share: the channel, the roots its server is verified against, and what each
 * request says of this agent (§8.3, §8.4). The library is loaded when the first channel is made: an agent without a
 * control plane does not keep it in memory.
 */
import { readFile } from 'node:fs/promises';
import type { ChannelOptions, Client, Metadata } from '@grpc/grpc-js';
import type { Header, TokenSource } from '../config/config.ts';
import type { RootSource } from '../config/values.ts';
import { CulvertError, messageOf } from '../errors.ts';
import { splitCertificates } from '../identity/pem.ts';
import { checkServerNames, destinationOf } from './server-names.ts';

/** A server of the control plane, as the settings name it. */
export interface ControlPlaneServer {
  /** Prefix of its settings: `CA_ADDRESS`, `XDS_ROOT_CA` … */
  readonly prefix: 'CA' | 'XDS';
  /** `https://host[:port]` */
  readonly address: string;
  readonly roots: RootSource;
  /** A further name that the server's certificate may bear. */
  readonly altHostname: string | null;
  readonly token: TokenSource;
  readonly clusterId: string;
  readonly headers: readonly Header[];
}

/**
 * The roots as they are now, PEM. Read again before a request or a connection, this follows a replaced file.
 * @throws CulvertError ROOTS_UNUSABLE
 */
export async function readRoots({ roots, prefix }: ControlPlaneServer): Promise<string> {
  const unusable = (what: string, cause?: unknown) =>
    new CulvertError('ROOTS_UNUSABLE', `${prefix}_ROOT_CA cannot be used: ${what}`, { cause });
  switch (roots.kind) {
    case 'file': {
      const pem = await readFile(roots.path, 'utf8').catch((error: unknown) => {
        throw unusable(
          `${messageOf(error)}; it names the file with the roots of the mesh, which istio mounts from the ConfigMap istio-ca-root-cert`,
          error,
        );
      });
      if (splitCertificates(pem).length === 0) throw unusable(`${roots.path} has no PEM certificate`);
      return pem;
    }
    case 'inline':
      if (splitCertificates(roots.pem).length === 0) throw unusable('its text has no PEM certificate');
      return roots.pem;
    case 'system': {
      const { getCACertificates } = await import('node:tls');
      const pem = getCACertificates('system').join('\n');
      if (pem === '') throw unusable('SYSTEM is asked for, but this system has no roots (package ca-certificates)');
      return pem;
    }
  }
}

/**
 * A channel to the server: TLS with the roots given, HTTP/2, no proxy. It connects when first used and is the caller's to
 * close. @param options further ones of grpc-js
 */
export async function openChannel(
  { address, altHostname }: ControlPlaneServer,
  rootsPem: string,
  options: ChannelOptions = {},
): Promise<Client> {
  const [grpc, tls, net] = await Promise.all([import('@grpc/grpc-js'), import('node:tls'), import('node:net')]);
  const { hostname, host, port } = destinationOf(address);
  // An intermediate may be the trust anchor, as with rustls.
  const context = tls.createSecureContext({ ca: rootsPem, allowPartialTrustChain: true });
  const credentials = grpc.credentials.createFromSecureContext(context, {
    checkServerIdentity(_, certificate) {
      // The library connects a channel that is closed after a failure once more, and would keep that connection for ever.
      if (client.getChannel().getConnectivityState(false) === grpc.connectivityState.SHUTDOWN) {
        return new Error('the channel is closed');
      }
      return checkServerNames(host, altHostname, certificate);
    },
  });
  const client = new grpc.Client(`dns:${hostname}:${port}`, credentials, {
    ...CHANNEL_OPTIONS,
    // An address is not allowed as server name (RFC 6066 §3); what the certificate must bear is checked above.
    ...(net.isIP(host) === 0 ? {} : { 'grpc.ssl_target_name_override': altHostname ?? 'localhost' }),
    ...options,
  });
  return client;
}

/**
 * The metadata of one request. A token file is read each time: the kubelet replaces it long before it expires.
 * @throws CulvertError TOKEN_UNUSABLE or HEADER_UNUSABLE
 */
export async function requestMetadata({ prefix, token, clusterId, headers }: ControlPlaneServer): Promise<Metadata> {
  const grpc = await import('@grpc/grpc-js');
  const metadata = new grpc.Metadata();
  for (const { name, value } of headers) {
    // The library would print the value in its error.
    if (!PRINTABLE.test(value.reveal())) {
      throw new CulvertError(
        'HEADER_UNUSABLE',
        `${prefix}_HEADER_${name.toUpperCase()} has characters that a header cannot carry`,
      );
    }
    metadata.set(name, value.reveal());
  }
  const bearer = await readToken(token);
  if (bearer !== null) metadata.set('authorization', `Bearer ${bearer}`);
  metadata.set('clusterid', clusterId);
  return metadata;
}

/** The token as it is now; null when there is none. @throws CulvertError TOKEN_UNUSABLE */
export async function readToken(source: TokenSource): Promise<string | null> {
  if (source.kind === 'none') return null;
  if (source.kind === 'literal') return checkedToken(source.token.reveal(), 'AUTH_TOKEN');
  const text = await readFile(source.path, 'utf8').catch((error: unknown) => {
    throw new CulvertError('TOKEN_UNUSABLE', `the token cannot be read: ${messageOf(error)}`, { cause: error });
  });
  const token = text.trim();
  // The file's text stays out of the message, whatever it is.
  if (token === '') throw new CulvertError('TOKEN_UNUSABLE', `token file exists, but was empty: ${source.path}`);
  return checkedToken(token, source.path);
}

function checkedToken(token: string, where: string): string {
  if (/^[\x21-\x7e]+$/.test(token)) return token;
  throw new CulvertError('TOKEN_UNUSABLE', `the token in ${where} has white space or control characters in it`);
}

/** What gRPC accepts as the value of a text header. */
const PRINTABLE = /^[\x20-\x7e]*$/;

/** HTTP/2 keep-alive as §8.4 has it. */
const CHANNEL_OPTIONS: ChannelOptions = {
  'grpc.keepalive_time_ms': 30_000,
  'grpc.keepalive_timeout_ms': 10_000,
  'grpc.enable_http_proxy': 0,
  'grpc.enable_channelz': 0,
  'grpc.service_config_disable_resolution': 1,
  'grpc.use_local_subchannel_pool': 1,
};
