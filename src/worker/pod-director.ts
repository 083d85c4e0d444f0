import type { CertificateManager } from '../identity/manager.ts';
import type { PolicyScopes } from '../policy/scopes.ts';
import type { MeshStore } from '../state/mesh-state.ts';
import type { PodInfo } from '../zds/types.ts';
import { isSameState, type PodMeshState, podMeshState } from './pod-mesh-state.ts';
import type { PolicyReport } from './policy-report.ts';
import type { Supervisor } from './supervisor.ts';

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
    this.#unsubscribe = mesh.subscribe((change) => {
      // First the plans, so that no connection is judged anew on a route of before.
      supervisor.invalidate(null);
      policies.changed(change.policies);
      this.tellAll();
    });
  }

  /** Policies may be others, without a change of the mesh state. */
  tellAll(): void {
    const pods = this.#supervisor.pods();
    for (const pod of pods) this.#tell(pod);
    this.#policies.retain(pods.map((pod) => this.#mesh.localWorkload(pod)).filter((workload) => workload !== null));
    this.#report.update();
  }

  podStarted(pod: PodInfo): void {
    this.#tell(pod);
    this.#report.update();
  }

  podStopped(pod: PodInfo): void {
    const identity = this.#known.get(pod.uid)?.identity ?? null;
    this.#known.delete(pod.uid);
    this.#forgetUnused(identity);
  }

  close(): void {
    this.#unsubscribe();
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
