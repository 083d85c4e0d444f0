import type { ValueType } from './values.ts';

/** One row of the table: everything there is to know about a setting. */
export interface Setting<T = unknown> {
  /** The environment variable. */
  readonly env: string;
  /** A second variable that wins over `env` when it is set. */
  readonly overriddenBy?: string;
  readonly type: ValueType<T>;
  /** As it would be written in the environment; null for none, or for one that follows from `otherwise`. */
  readonly default: string | null;
  /** Where `default` is null: what is in force then, in words. */
  readonly otherwise?: string;
  readonly unit?: string;
  readonly meaning: string;
  readonly why: string;
  /** Never printed. */
  readonly secret?: true;
  /** Not in `Config` itself: only what others are derived from. */
  readonly input?: true;
  /** Path of keys in the config dump, dots between; by default the setting's own key. Null: composed from several or not shown. */
  readonly dump?: string | null;
}
