import type { Side } from '../harness/certificates.ts';

/** What a contender gets to start with. */
export interface Surroundings {
  /** For configuration files; removed after the run. */
  readonly folder: string;
  readonly certificates: { readonly near: Side; readonly far: Side };
  /** Where the far side connects to: a port of 127.0.0.1. */
  readonly originPort: number;
}

/**
 * Two processes, back to back: the near side takes plain TCP connections and carries them through mutual TLS 1.3 to the
 * far side, which connects to the origin. One data-path thread each.
 */
export interface Contender {
  readonly name: string;
  start(surroundings: Surroundings): Promise<RunningContender>;
}

export interface RunningContender {
  /** The port of 127.0.0.1 that takes plain TCP. */
  readonly port: number;
  readonly nearPids: readonly number[];
  readonly farPids: readonly number[];
  stop(): Promise<void>;
}
