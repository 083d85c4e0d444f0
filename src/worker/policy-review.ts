import { isJudged, judge } from '../filters/policy.ts';
import { deny } from '../filters/verdict.ts';
import { runInSlices } from '../slices.ts';
import type { PodRuntime } from './pod-runtime.ts';

/**
 * Judges the live connections of pods anew when their policies change, and ends those that are denied now (spec §5.4). In
 * slices: traffic goes on in between, and connections that come meanwhile are judged by the new policies anyway.
 */
export class PolicyReview {
  readonly #pods = new Set<PodRuntime>();
  #isRunning = false;

  /** All policies are looked at as they stand when a connection's turn comes. */
  begin(pod: PodRuntime): void {
    // Behind the others, if it was among them.
    this.#pods.delete(pod);
    this.#pods.add(pod);
    if (this.#isRunning) return;
    this.#isRunning = true;
    runInSlices(this.#review(), () => {
      this.#isRunning = false;
    });
  }

  *#review(): Generator<void, void> {
    for (const pod of this.#pods) {
      this.#pods.delete(pod);
      for (const [index, connection] of [...pod.connections].entries()) {
        if (index % JUDGED_AT_ONCE === 0) yield;
        if (!isJudged(connection) || connection.context === null || connection.isOver) continue;
        // A workload that the mesh state has lost sight of is no reason to cut what was allowed: nobody has forbidden it.
        if (pod.policies === null) break;
        if (judge(connection, null).kind !== 'deny') continue;
        connection.cut(deny('policy-change', 'connection closed due to policy change'));
      }
      // Those that waited for a policy.
      for (const proceed of pod.takeUndecided()) {
        proceed();
        yield;
      }
    }
  }
}

/** A judgement takes a microsecond or two, the look at the clock in between a tenth of that. */
const JUDGED_AT_ONCE = 16;
