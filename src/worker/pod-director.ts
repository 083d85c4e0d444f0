import { isDeepStrictEqual } from 'node:util';
import type { CertificateManager } from '../identity/manager.ts';
import type { MeshStore } from '../state/mesh-state.ts';
import type { PodInfo } from '../zds/types.ts';
import { type PodMeshState, podMeshState } from './pod-mesh-state.ts';
import type { Supervisor } from './supervisor.ts';

/**
 * Keeps the data plane in step with the mesh state: which identity a pod has, which policies judge its connections, and
 * which plans are out of date.
 */
export class PodDirector {
  readonly #mesh: MeshStore;
  readonly #supervisor: Supervisor;
  readonly #certificates: CertificateManager;
  readonly #known = new Map<string, PodMeshState>();
  readonly #unsubscribe: () => void;

  constructor(mesh: MeshStore, supervisor: Supervisor, certificates: CertificateManager) {
    this.#mesh = mesh;
    this.#supervisor = supervisor;
    this.#certificates = certificates;
    this.#unsubscribe = mesh.subscribe(() => {
      // First the plans, so that no connection is judged anew on a route of before.
      supervisor.invalidate(null);
      for (const pod of supervisor.pods()) this.#tell(pod);
    });
  }

  podStarted(pod: PodInfo): void {
    this.#tell(pod);
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
    const state = podMeshState(this.#mesh, pod);
    const before = this.#known.get(pod.uid);
    if (before !== undefined && isDeepStrictEqual(before, state)) return;
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
