import type { Setting } from '../setting.ts';
import { duration, filePath, fixed, nameSegment } from '../values.ts';

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
  crlPath: {
    env: 'CRL_PATH',
    type: fixed('', null, 'revocation lists are not supported by this version'),
    default: null,
    otherwise: 'off',
    meaning: 'Certificate revocation list.',
    why: 'Refused rather than ignored: an operator who sets it relies on it.',
  },
  compliancePolicy: {
    env: 'COMPLIANCE_POLICY',
    type: fixed('', null, 'restricted key exchanges are not supported by this version'),
    default: null,
    otherwise: 'off',
    meaning: 'Restriction of the TLS key exchange.',
    why: 'Refused rather than ignored: an operator who sets it relies on it.',
    dump: null,
  },
  tls12Enabled: {
    env: 'TLS12_ENABLED',
    type: fixed('false', false, 'tunnels speak TLS 1.3'),
    default: 'false',
    meaning: 'TLS 1.2 on tunnels.',
    why: 'Refused rather than ignored: its peers could not connect.',
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
