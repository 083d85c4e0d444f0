/** Authorization policies: as their source gives them, compiled for one local workload, and the verdict (spec §5). */
import type { PolicyKey } from '../state/types.ts';
import type { PolicyTable } from './table.ts';

/** A policy as its source gives it; the shape is that of the config dump (spec §14.4). */
export interface Policy {
  readonly name: string;
  readonly namespace: string;
  readonly scope: 'Global' | 'Namespace' | 'WorkloadSelector';
  readonly action: 'Allow' | 'Deny';
  /** rules OR → clauses AND → matches OR → fields AND → values OR */
  readonly rules: readonly PolicyRule[];
  readonly dryRun: boolean;
  /** Why the source could not understand this policy; null when it could. Such a policy denies whatever it applies to. */
  readonly unintelligible: string | null;
}

export type PolicyRule = readonly PolicyClause[];
export type PolicyClause = readonly PolicyMatch[];

/** The value lists of one match. An empty list asks nothing; a match of nothing but empty lists never matches. */
export interface PolicyMatch {
  readonly namespaces: readonly StringMatch[];
  readonly notNamespaces: readonly StringMatch[];
  readonly serviceAccounts: readonly ServiceAccountMatch[];
  readonly notServiceAccounts: readonly ServiceAccountMatch[];
  readonly principals: readonly StringMatch[];
  readonly notPrincipals: readonly StringMatch[];
  /** `ip` or `ip/length` */
  readonly sourceIps: readonly string[];
  readonly notSourceIps: readonly string[];
  readonly destinationIps: readonly string[];
  readonly notDestinationIps: readonly string[];
  readonly destinationPorts: readonly number[];
  readonly notDestinationPorts: readonly number[];
}

/** Presence: any text that is not empty. */
export type StringMatch =
  | { readonly Exact: string }
  | { readonly Prefix: string }
  | { readonly Suffix: string }
  | { readonly Presence: readonly [] };

export interface ServiceAccountMatch {
  readonly namespace: string;
  readonly serviceAccount: string;
}

/** A match that asks nothing; spread it to build others. */
export const EMPTY_MATCH: PolicyMatch = Object.freeze({
  namespaces: [],
  notNamespaces: [],
  serviceAccounts: [],
  notServiceAccounts: [],
  principals: [],
  notPrincipals: [],
  sourceIps: [],
  notSourceIps: [],
  destinationIps: [],
  notDestinationIps: [],
  destinationPorts: [],
  notDestinationPorts: [],
});

/**
 * What judges connections to one local workload. Plain data and shared memory, which can cross threads. A list holds one
 * table per scope that has policies of that kind: of the mesh, of the namespace, of the workload.
 */
export interface CompiledPolicies {
  /** Why every connection that is not explicitly denied is refused or has to wait; null when all policies are in force. */
  readonly refusal: Refusal | null;
  readonly dryRunDeny: readonly PolicyTable[];
  readonly deny: readonly PolicyTable[];
  readonly dryRunAllow: readonly PolicyTable[];
  readonly allow: readonly PolicyTable[];
}

/** A policy that applies but cannot be enforced. */
export interface Refusal {
  /**
   * `awaited`: it is not known yet, or not compiled yet, and nobody can say what it permits;
   * `unknown`: it has been awaited for long; `unintelligible`: it says something that has no meaning.
   */
  readonly kind: 'awaited' | 'unknown' | 'unintelligible';
  readonly policy: PolicyKey;
  readonly reason: string;
}

export interface PolicyConnection {
  /** Peer address of the TCP or HBONE connection. */
  readonly sourceIp: string;
  /** SPIFFE id of the peer; null without mTLS */
  readonly sourceIdentity: string | null;
  /** Address and port of the resolved application, not of the tunnel. */
  readonly destinationIp: string;
  readonly destinationPort: number;
}

export type Verdict =
  | { readonly kind: 'allow' }
  /** `reason` follows "connection closed due to policy rejection: " in logs (spec §13.6). */
  | { readonly kind: 'deny'; readonly reason: string; readonly policy: PolicyKey | null }
  /** Nobody can say yet: a new connection waits, a live one goes on. Later policies decide. */
  | { readonly kind: 'wait'; readonly reason: string; readonly policy: PolicyKey };
