/** Between the sources of Kubernetes objects and those that read them. */

/** A kind of Kubernetes object, and how one is read. `T` keeps only what the control plane needs of it. */
export interface Kind<T = unknown> {
  readonly kind: string;
  /** "" for the core group. */
  readonly group: string;
  readonly version: string;
  readonly plural: string;
  readonly namespaced: boolean;
  /** Whether the API server may not know the kind, because its CRD is not installed (yet). */
  readonly optional: boolean;
  /** Limits what is asked for, on the server. */
  readonly fieldSelector?: string;
  /**
   * Null for an object that is of no interest.
   * @throws Error that says which field cannot be used and why; the last good version of the object is kept then
   */
  read(object: unknown): T | null;
  /**
   * What is to be in force instead of a malformed object that never had a good version, because leaving it out would widen
   * somebody's rights: a source tells of it like of any object. Null when nothing is needed.
   * @throws Error when not even the object's name can be read
   */
  standIn?(object: unknown): T | null;
}

/**
 * `before` is null for a new object, `after` for one that is gone or of no interest any more. Both are null when a rejected
 * object is gone that never had a good version.
 */
export interface ObjectChange {
  readonly kind: Kind;
  /** `namespace/name`, or `name` of a kind without namespaces. */
  readonly key: string;
  readonly before: unknown;
  readonly after: unknown;
}

/** A malformed object; its last good version, if there is one, stays in force until the object is corrected or deleted. */
export interface RejectedObject {
  readonly kind: Kind;
  readonly key: string;
  readonly generation: number;
  /** Names the field and the remedy. */
  readonly reason: string;
}

export interface ObjectListener {
  /** Changes of one turn together, in the order in which they came. Before `synced` everything that there is. */
  changed(changes: readonly ObjectChange[]): void;
  rejected(object: RejectedObject): void;
}

/** The Kubernetes API, or a folder of the same objects as YAML. */
export interface ObjectSource {
  /** Resolves when all kinds have been read once, and `changed` has told about all of it. */
  readonly synced: Promise<void>;
  close(): void;
}
