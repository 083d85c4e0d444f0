import type { Config } from '../config/config.ts';
import type { PlaneSettings } from '../filters/plane.ts';

/** The part of the configuration that data-plane threads need. */
export function planeSettings(config: Config): PlaneSettings {
  return {
    mark: config.packetMark,
    reusePort: config.inpodPortReuse,
    ipv6: config.ipv6Enabled,
    originalSource: config.originalSource,
    keepalive: config.keepaliveEnabled
      ? {
          time: Math.round(config.keepaliveTime / 1000),
          interval: Math.round(config.keepaliveInterval / 1000),
          retries: config.keepaliveRetries,
        }
      : null,
    userTimeoutMs: config.userTimeoutEnabled
      ? config.keepaliveTime + config.keepaliveInterval * config.keepaliveRetries
      : 0,
    localhostAppTunnel: config.localhostAppTunnel,
    responseBaggage: config.responseBaggage,
    maxConnectionsPerPod: config.maxConnectionsPerPod,
    maxHandshakesPerPod: config.maxHandshakesPerPod,
    connectTimeout: config.connectTimeout,
    attemptTimeout: config.attemptTimeout,
    ejectionTime: config.ejectionTime,
    ejectionMaxTime: config.ejectionMaxTime,
    ejectionMaxPercent: config.ejectionMaxPercent,
    handshakeTimeout: config.tlsHandshakeTimeout,
    settingsTimeout: config.http2SettingsTimeout,
    responseTimeout: config.connectResponseTimeout,
    maxStreamsPerTunnel: config.poolMaxStreamsPerConnection,
    tunnelIdleTimeout: config.poolUnusedReleaseTimeout,
    tunnelMaxAge: config.tunnelMaxAge,
    streamWindow: config.http2StreamWindow,
    connectionWindow: config.http2ConnectionWindow,
    frameSize: config.http2FrameSize,
    tlsGroups: config.compliancePolicy === 'pqc' ? PQC_GROUPS : TLS_GROUPS,
    tls12: config.tls12Enabled,
    windowBudget: config.memoryBudget,
    keyLogPath: config.tlsKeylog ?? '',
    keyLogAddresses: config.tlsKeylogAddresses,
    policyInfoLogging: config.authzPolicyInfoLogging,
  };
}

/**
 * Key exchange: the hybrid of ML-KEM first. A key share of X25519 goes along, so that a peer without the hybrid does not
 * cost a second round trip.
 */
const TLS_GROUPS = '*X25519MLKEM768:*X25519:P-256';
const PQC_GROUPS = 'X25519MLKEM768';
