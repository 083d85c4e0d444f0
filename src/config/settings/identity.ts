import type { Setting } from '../setting.ts';
import { addressList, boolean, compliancePolicy, duration, filePath, fixed, nameSegment } from '../values.ts';

export const identitySettings = {
  caDir: {
    env: 'CULVERT_CA_DIR',
    type: filePath,
    default: null,
    otherwise: 'no embedded CA',
    meaning:
      'Folder of the embedded CA: `ca-cert.pem`, `ca-key.pem`, `cert-chain.pem`, `root-cert.pem`. Created, with a new root, when it is empty.',
    why: 'Certificates without a control plane. Agents given the same folder trust each other; who can read the key can be anyone in the mesh.',
  },
  secretTtl: {
    env: 'SECRET_TTL',
    type: duration('1s', '3650d'),
    default: '24h',
    meaning: 'Validity that is asked for when a workload certificate is issued; renewed at half of it.',
    why: 'Short enough that a stolen key is soon worthless, long enough to outlast an outage of the CA.',
  },
  trustDomain: {
    env: 'TRUST_DOMAIN',
    type: nameSegment,
    default: 'cluster.local',
    meaning: 'Trust domain of the agent’s own identity. That of a workload comes with the workload.',
    why: 'The mesh’s default.',
    dump: null,
  },
  tlsKeylog: {
    env: 'CULVERT_TLS_KEYLOG',
    type: filePath,
    default: null,
    otherwise: 'off',
    meaning: 'File that the secrets of TLS sessions are appended to, for reading a packet capture.',
    why: 'For debugging only: who has this file can read the traffic.',
  },
  tlsKeylogAddresses: {
    env: 'CULVERT_TLS_KEYLOG_ADDRESSES',
    type: addressList,
    default: null,
    otherwise: 'those of all peers',
    meaning: 'Peers whose sessions go to `CULVERT_TLS_KEYLOG`: addresses and CIDR ranges, separated by commas.',
    why: 'One conversation can be looked at without giving away all of them.',
  },
  crlPath: {
    env: 'CRL_PATH',
    type: filePath,
    default: null,
    otherwise: 'off',
    meaning:
      'File of certificate revocation lists: any number as PEM, or one as DER. Followed; a list that revokes the certificate of a connected peer cuts its tunnels.',
    why: 'For a certificate or a signing CA that must not be trusted until it expires.',
  },
  compliancePolicy: {
    env: 'COMPLIANCE_POLICY',
    type: compliancePolicy,
    default: null,
    otherwise: 'X25519MLKEM768, X25519 or P-256, in this order',
    meaning: '`pqc`: tunnels use TLS 1.3 with the key exchange X25519MLKEM768 and nothing else.',
    why: 'What is recorded today must not be read once quantum computers can break the other key exchanges. Peers without it cannot connect.',
    dump: null,
  },
  tls12Enabled: {
    env: 'TLS12_ENABLED',
    type: boolean,
    default: 'false',
    meaning: 'Permit TLS 1.2 on tunnels besides 1.3. Not together with `COMPLIANCE_POLICY=pqc`.',
    why: 'Only for peers that have nothing better: it costs a round trip more and hides less of the handshake.',
    dump: null,
  },
  fakeCa: {
    env: 'FAKE_CA',
    type: fixed('false', false, 'use CULVERT_CA_DIR'),
    default: 'false',
    meaning: 'Certificates of a CA that exists only in this process.',
    why: 'Replaced by the embedded CA, which other agents can trust.',
  },
} as const satisfies Record<string, Setting>;
