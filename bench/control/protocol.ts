/** What the processes of the benchmark say to each other. Times are in ms. */
export type Order = 'change' | 'report';

export type Report =
  | { readonly kind: 'serving'; readonly port: number; readonly sinceStartMs: number }
  | { readonly kind: 'changed'; readonly at: number }
  | {
      readonly kind: 'report';
      /** Since the last report, as what follows. */
      readonly cpuMs: number;
      readonly residentMb: number;
      readonly peakMb: number;
      readonly longestTurnMs: number;
      /** Clients that have not answered a response. */
      readonly unanswered: number;
    }
  /** All agents have everything. */
  | { readonly kind: 'synced'; readonly bytes: number }
  /** When each agent had received a push. */
  | { readonly kind: 'received'; readonly at: readonly number[] };
