import { type IpWords, parseIp } from '../netns/address.ts';
import type { PolicyConnection } from './types.ts';

/** A connection as the fields of a match see it (spec §5.1). */
export interface Facts {
  readonly source: IpWords;
  readonly destination: IpWords;
  readonly port: number;
  /** SPIFFE id without its scheme; null without identity */
  readonly principal: string | null;
  /** '' without identity */
  readonly namespace: string;
  /** null without identity */
  readonly serviceAccount: string | null;
}

/** Connections that are alike share what policies see of them (inbound/context.ts): it is taken apart once for all. */
const known = new WeakMap<PolicyConnection, Facts>();

/** Null when an address of the connection cannot be read. */
export function factsOf(connection: PolicyConnection): Facts | null {
  let facts = known.get(connection) ?? null;
  if (facts === null) {
    facts = newFacts(connection);
    if (facts !== null) known.set(connection, facts);
  }
  return facts;
}

function newFacts({ sourceIp, sourceIdentity, destinationIp, destinationPort }: PolicyConnection): Facts | null {
  const source = parseIp(sourceIp);
  const destination = parseIp(destinationIp);
  if (source === null || destination === null) return null;
  const principal = sourceIdentity?.startsWith(SCHEME) ? sourceIdentity.slice(SCHEME.length) : null;
  const parts = principal?.split('/') ?? [];
  const isIdentity = parts.length === 5 && parts[1] === 'ns' && parts[3] === 'sa';
  return {
    source,
    destination,
    port: destinationPort,
    principal,
    namespace: isIdentity ? parts[2]! : '',
    serviceAccount: isIdentity ? parts[4]! : null,
  };
}

const SCHEME = 'spiffe://';
