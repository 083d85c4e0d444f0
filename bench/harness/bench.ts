import type { Figure } from './figures.ts';

export interface BenchOptions {
  /** For configuration files; removed after the run. */
  readonly folder: string;
  /** Short slices, one round: shows that everything runs, not how fast. */
  readonly quick: boolean;
  /** Data-plane threads of the agent in *pods*, and in the second half of *fairness*. */
  readonly workers: number;
  readonly progress: (line: string) => void;
}

export type Bench = (options: BenchOptions) => Promise<Figure[]>;
