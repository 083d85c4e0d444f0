import { parsePort } from '../../netns/address.ts';
import type { Kind } from '../kinds.ts';
import { Field } from './field.ts';
import { type Labels, type Metadata, readMetadata, readMetadataOfMalformed } from './metadata.ts';
import { expectOnly, readSelector } from './selector.ts';

export type MtlsMode = (typeof MODES)[number];
const MODES = ['UNSET', 'DISABLE', 'PERMISSIVE', 'STRICT'] as const;

export interface PeerAuthentication extends Metadata {
  /**
   * Null: all workloads of the namespace, of the mesh in the root namespace. Without labels: all of the namespace; in the
   * root namespace all of the mesh if it is strict, else none.
   */
  readonly selector: Labels | null;
  readonly mode: MtlsMode;
  /** By port of the workload, ascending. */
  readonly portModes: readonly (readonly [port: number, mode: MtlsMode])[];
}

export const PEER_AUTHENTICATIONS: Kind<PeerAuthentication> = {
  kind: 'PeerAuthentication',
  group: 'security.istio.io',
  version: 'v1',
  plural: 'peerauthentications',
  namespaced: true,
  optional: true,
  read: readPeerAuthentication,
  standIn: strictInstead,
};

function readPeerAuthentication(object: unknown): PeerAuthentication {
  const policy = Field.of(object);
  const metadata = readMetadata(policy);
  const spec = policy.at('spec');
  expectOnly(spec, ['selector', 'mtls', 'portLevelMtls']);
  return {
    ...metadata,
    selector: readSelector(spec.at('selector')),
    mode: readMode(spec.at('mtls')),
    portModes: readPortModes(spec.at('portLevelMtls')),
  };
}

/** Whatever it was to say, it does not let anybody in without an identity. */
function strictInstead(object: unknown): PeerAuthentication {
  const policy = Field.of(object);
  const metadata = readMetadataOfMalformed(policy);
  let selector: Labels | null = null;
  try {
    selector = readSelector(policy.at('spec').at('selector'));
  } catch {
    // It is not known whom it means: all.
  }
  return { ...metadata, selector, mode: 'STRICT', portModes: [] };
}

function readMode(mtls: Field): MtlsMode {
  expectOnly(mtls, ['mode']);
  const given = mtls.at('mode');
  const mode = MODES.find((known) => known === (given.text() || 'UNSET'));
  if (mode === undefined) throw given.wrong(`one of ${MODES.join(', ')}`);
  return mode;
}

function readPortModes(ports: Field): PeerAuthentication['portModes'] {
  const modes = ports.names().map((name) => {
    const port = parsePort(name);
    if (port === null || port === 0) throw new Error(`${ports.path()}: ${JSON.stringify(name)} is no port`);
    return [port, readMode(ports.at(name))] as const;
  });
  return modes.sort(([a], [b]) => a - b);
}
