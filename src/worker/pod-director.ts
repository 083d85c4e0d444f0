import type { CertificateManager } from '../identity/manager.ts';
import type { PolicyScopes } from '../policy/scopes.ts';
import type { MeshStore } from '../state/mesh-state.ts';
import { readKeys } from '../state/read-keys.ts';
import { podName } from '../state/workload-table.ts';
import type { PodInfo } from '../zds/types.ts';
import { isSameState, type PodMeshState, podMeshState } from './pod-mesh-state.ts';
import type { PolicyReport } from './policy-report.ts';
import type { Supervisor } from './supervisor.ts';

/** So much memory of policies that are not in force any more may wait to be collected. */
const REPLACED_BYTES = 16 * 1024 * 1024;

/**
 * Keeps the data plane in step with the mesh state: which identity a pod has, which policies judge its connections, and
 * which plans are out of date.
 */
export class PodDirector {
  readonly #mesh: MeshStore;
  readonly #supervisor: Supervisor;
  readonly #certificates: CertificateManager;
  readonly #policies: PolicyScopes;
  readonly #report: PolicyReport;
  readonly #known = new Map<string, PodMeshState>();
  readonly #unsubscribe: () => void;
  #replacedBytes = 0;

  constructor(
    mesh: MeshStore,
    supervisor: Supervisor,
    certificates: CertificateManager,
    policies: PolicyScopes,
    report: PolicyReport,
  ) {
    this.#mesh = mesh;
    this.#supervisor = supervisor;
    this.#certificates = certificates;
    this.#policies = policies;
    this.#report = report;
    this.#unsubscribe = mesh.subscribe(
      (change) => {
        // First the plans, so that no connection is judged anew on a route of before.
        supervisor.invalidate(change);
        policies.changed(change.policies);
        const concerned = (pod: PodInfo) => change.policies.size > 0 || change.touched.has(readKeys.pod(podName(pod)));
        if (supervisor.pods().some(concerned)) this.#tellThose(concerned);
      },
      () => supervisor.isServing,
    );
  }

  /** Policies may be others, without a change of the mesh state. */
  tellAll(): void {
    this.#tellThose(() => true);
  }

  podStarted(pod: PodInfo): void {
    this.#tell(pod);
    this.#report.update();
  }

  podStopped(pod: PodInfo): void {
    const identity = this.#known.get(pod.uid)?.identity ?? null;
    this.#known.delete(pod.uid);
    this.#forgetUnused(identity);
    this.#tidyPolicies();
  }

  close(): void {
    this.#unsubscribe();
  }

  #tellThose(concerned: (pod: PodInfo) => boolean): void {
    for (const pod of this.#supervisor.pods()) if (concerned(pod)) this.#tell(pod);
    this.#tidyPolicies();
  }

  /** Lets go of policies that apply to no pod any more. */
  #tidyPolicies(): void {
    const workloads = this.#supervisor.pods().map((pod) => this.#mesh.localWorkload(pod));
    this.#policies.retain(workloads.filter((workload) => workload !== null));
    this.#report.update();
    this.#replacedBytes += this.#policies.takeReplacedBytes();
    if (this.#replacedBytes < REPLACED_BYTES) return;
    this.#replacedBytes = 0;
    this.#supervisor.collectYoung();
  }

  #tell(pod: PodInfo): void {
    const state = podMeshState(this.#mesh, this.#policies, pod);
    const before = this.#known.get(pod.uid);
    if (before !== undefined && isSameState(before, state)) return;
    this.#known.set(pod.uid, state);
    if (state.identity !== null) this.#certificates.prefetch(state.identity);
    this.#supervisor.update(pod.uid, state);
    if (before !== undefined && before.identity !== state.identity) this.#forgetUnused(before.identity);
  }

  #forgetUnused(identity: string | null): void {
    if (identity === null) return;
    for (const state of this.#known.values()) if (state.identity === identity) return;
    this.#certificates.forget(identity);
  }
}
