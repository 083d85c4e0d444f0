import type { Direction, ProxiedConnection } from '../filters/connection.ts';
import { ConnectionCounts } from './connection-counts.ts';

/** The live connections of a pod in one thread, counted together with those in the others. */
export class LiveConnections extends Set<ProxiedConnection> {
  readonly #counts: ConnectionCounts;

  constructor(counts: SharedArrayBuffer, thread: number) {
    super();
    this.#counts = new ConnectionCounts(counts, thread);
  }

  override add(connection: ProxiedConnection): this {
    if (!this.has(connection)) this.#counts.add(connection.direction, 1);
    return super.add(connection);
  }

  override delete(connection: ProxiedConnection): boolean {
    const wasThere = super.delete(connection);
    if (wasThere) this.#counts.add(connection.direction, -1);
    return wasThere;
  }

  /** Of the pod, in all threads. */
  total(direction: Direction): number {
    return this.#counts.total(direction);
  }
}
