/**
 * Authorization policies: as their source gives them, compiled for one local workload, and the verdict (spec §5).
 * All of it is plain data that can cross threads.
 */
import type { Cidr } from '../netns/address.ts';
import type { PolicyKey } from '../state/types.ts';

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

/** What a worker needs to judge connections to one local workload, already in the order of evaluation. */
export interface CompiledPolicies {
  /** Why every connection is refused, before any policy is asked; empty when all policies were understood. */
  readonly refusals: readonly Refusal[];
  readonly dryRunDeny: readonly CompiledPolicy[];
  readonly deny: readonly CompiledPolicy[];
  readonly dryRunAllow: readonly CompiledPolicy[];
  readonly allow: readonly CompiledPolicy[];
}

/** A policy that applies but is not known, or could not be understood. */
export interface Refusal {
  readonly policy: PolicyKey;
  readonly reason: string;
}

export interface CompiledPolicy {
  readonly key: PolicyKey;
  /** Without the rules and matches that can never match, so an empty clause is one that asks nothing. */
  readonly rules: readonly (readonly (readonly CompiledMatch[])[])[];
}

/** A match with its addresses as numbers; null stands for an empty list. */
export interface CompiledMatch {
  readonly namespaces: readonly StringMatch[] | null;
  readonly notNamespaces: readonly StringMatch[] | null;
  readonly serviceAccounts: readonly ServiceAccountMatch[] | null;
  readonly notServiceAccounts: readonly ServiceAccountMatch[] | null;
  readonly principals: readonly StringMatch[] | null;
  readonly notPrincipals: readonly StringMatch[] | null;
  readonly sourceIps: readonly Cidr[] | null;
  readonly notSourceIps: readonly Cidr[] | null;
  readonly destinationIps: readonly Cidr[] | null;
  readonly notDestinationIps: readonly Cidr[] | null;
  readonly destinationPorts: readonly number[] | null;
  readonly notDestinationPorts: readonly number[] | null;
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
  | { readonly kind: 'deny'; readonly reason: string; readonly policy: PolicyKey | null };
