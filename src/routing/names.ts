/** What DNS has said of workloads that have a name instead of addresses (spec §3.7). */
export interface ResolvedNames {
  /** The canonical addresses of a name; none when it has none, with the reason. null while it is not known. */
  addresses(hostname: string): ResolvedName | null;
}

export interface ResolvedName {
  readonly ips: readonly string[];
  /** Why there are none; '' when there are. */
  readonly failure: string;
}

/** For plans that need no names. */
export const NO_NAMES: ResolvedNames = { addresses: () => null };
