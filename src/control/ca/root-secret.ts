import { messageOf } from '../../errors.ts';
import type { CaMaterial } from '../../identity/ca-material.ts';
import { isConflict, type KubeApi } from '../../kube/api.ts';
import { fields, labels, metadataOf, text } from '../../kube/object.ts';
import { startReflector } from '../../kube/reflector.ts';
import type { Logger } from '../../log/logger.ts';
import { createCaretaker } from '../caretaker.ts';
import type { Lease } from '../lease.ts';
import { type CaSource, checkTrusted } from './ca-source.ts';
import {
  formatRootState,
  materialOf,
  newRootState,
  parseRootState,
  type RootState,
  type RotationPolicy,
  rotate,
} from './root-state.ts';
import type { TrustGate } from './trust-gate.ts';

export interface RootSecretOptions {
  readonly api: Pick<KubeApi, 'get' | 'lines' | 'create' | 'mergePatch'>;
  readonly namespace: string;
  readonly name: string;
  /** Only its holder writes. */
  readonly lease: Lease;
  readonly policy: RotationPolicy;
  readonly gate: Pick<TrustGate, 'isOpen' | 'mayCreateRoot' | 'onChange'>;
  readonly log: Pick<Logger, 'info' | 'warn' | 'error'>;
  /** ms since 1970 */
  readonly now?: () => number;
}

/** An annotation that asks for a new root, whatever its value; it goes when the new root is published. */
export const ROTATE_ROOT = 'culvert.io/rotate-root';

/**
 * A root that the mesh has made itself, in a Secret in the form of istiod's, which may be copied here to be gone on with.
 * Every replica signs with what the Secret says; the holder of the lease makes it, rotates it, and makes it again from
 * memory when it is deleted. A Secret that cannot be used leaves the root of before in force, and is not written to.
 */
export function openRootSecret(options: RootSecretOptions): CaSource {
  const { api, namespace, name, lease, policy, gate, log, now = Date.now } = options;
  const checkMs = Math.min(MAX_CHECK_MS, policy.overlapMs / 20);
  const collection = `/api/v1/namespaces/${namespace}/secrets`;
  const where = `Secret ${namespace}/${name}`;
  const listeners: (() => void)[] = [];
  let inForce: { readonly state: RootState; readonly material: CaMaterial } | null = null;
  /** What is known of the object. */
  let found: Found = { kind: 'unknown' };

  const caretaker = createCaretaker(step, {
    everyMs: checkMs,
    failed(error, waitMs) {
      log.warn('control::ca', 'the Secret of the root cannot be written, trying again', {
        object: where,
        error: messageOf(error),
        wait_ms: waitMs,
      });
    },
  });
  const reflector = startReflector<Readable>({
    api,
    path: collection,
    query: { fieldSelector: `metadata.name=${name}` },
    key: (object) => text(metadataOf(object).name),
    read,
    onRejected(_object, _key, error) {
      found = { kind: 'unusable' };
      log.error(
        'control::ca',
        'the root in the Secret cannot be used; that of before, if there is one, goes on signing',
        {
          object: where,
          error: messageOf(error),
        },
      );
    },
    onChange(_before, after) {
      found = after === null ? { kind: 'missing' } : { kind: 'readable', ...after };
      if (after !== null) use(after);
      else if (!gate.isOpen()) inForce = null;
      caretaker.tend();
    },
    log,
  });
  void reflector.synced.then(() => {
    if (found.kind === 'unknown') found = { kind: 'missing' };
    caretaker.tend();
  });
  lease.onChange((held) => held && caretaker.tend());
  gate.onChange(() => caretaker.tend());

  return {
    where,
    material: () => inForce?.material ?? null,
    revocationLists: () => null,
    onChange: (listener) => void listeners.push(listener),
    close() {
      caretaker.close();
      reflector.close();
    },
  };

  /** @throws CulvertError CA_INVALID or CA_NOT_TRUSTED_YET */
  function read(object: unknown): Readable {
    const encoded = labels(fields(object).data);
    const data = Object.fromEntries(
      Object.entries(encoded).map(([file, value]) => [file, Buffer.from(value, 'base64').toString()]),
    );
    const state = parseRootState(data, where);
    const material = materialOf(state, where);
    if (gate.isOpen() && inForce !== null && !state.former.includes(inForce.state.active.cert.fingerprint256)) {
      checkTrusted(inForce.material, material);
    }
    const { resourceVersion, annotations } = metadataOf(object);
    return {
      state,
      material,
      version: text(resourceVersion),
      isAsked: Object.hasOwn(fields(annotations), ROTATE_ROOT),
    };
  }

  function use({ state, material }: Readable): void {
    const isNew =
      inForce === null || inForce.material.rootsPem !== material.rootsPem || !isSameSigner(inForce.state, state);
    inForce = { state, material };
    if (!isNew) return;
    log.info('control::ca', 'the root in the Secret is in force', {
      object: where,
      fingerprint: state.active.cert.fingerprint256,
      until: state.active.cert.validToDate.toISOString(),
    });
    for (const listener of listeners) listener();
  }

  async function step(): Promise<void> {
    if (!lease.held()) return;
    if (found.kind === 'missing' && gate.mayCreateRoot()) return await create();
    if (found.kind !== 'readable' || !gate.isOpen()) return;
    const { state, isAsked, version } = found;
    const due = await rotate(state, policy, now(), isAsked);
    // A key takes time to be made.
    if (due === null || !lease.held()) return;
    const isAnswered = isAsked && due.step !== 'forget the old root';
    const data = encode(formatRootState(due.state));
    const metadata = { resourceVersion: version, ...(isAnswered ? { annotations: { [ROTATE_ROOT]: null } } : {}) };
    if (await unlessOvertaken(api.mergePatch(`${collection}/${name}`, { metadata, data }))) {
      log.info('control::ca', `rotation of the root: ${due.step}`, { object: where });
    }
  }

  async function create(): Promise<void> {
    const isRestored = inForce !== null;
    const state = inForce?.state ?? (await newRootState(policy, now()));
    if (!lease.held()) return;
    const data = encode({ ...formatRootState(state), 'cert-chain.pem': '', 'key.pem': '' });
    const secret = {
      apiVersion: 'v1',
      kind: 'Secret',
      type: 'istio.io/ca-root',
      metadata: { name, namespace },
      data: Object.fromEntries(Object.entries(data).filter(([, value]) => value !== null)),
    };
    if (!(await unlessOvertaken(api.create(collection, secret)))) return;
    log.info('control::ca', isRestored ? 'the Secret of the root was gone and is there again' : 'a new root was made', {
      object: where,
    });
  }
}

/** How often it is looked whether a step of a rotation is due. */
const MAX_CHECK_MS = 60_000;

interface Readable {
  readonly state: RootState;
  readonly material: CaMaterial;
  readonly version: string;
  readonly isAsked: boolean;
}

type Found = { readonly kind: 'unknown' | 'missing' | 'unusable' } | ({ readonly kind: 'readable' } & Readable);

function isSameSigner(a: RootState, b: RootState): boolean {
  return a.active.cert.fingerprint256 === b.active.cert.fingerprint256;
}

/** False when somebody else has changed it meanwhile: the watch tells what it is now. */
async function unlessOvertaken(written: Promise<unknown>): Promise<boolean> {
  try {
    await written;
    return true;
  } catch (error) {
    if (isConflict(error)) return false;
    throw error;
  }
}

function encode(data: Readonly<Record<string, string | null>>): Record<string, string | null> {
  return Object.fromEntries(
    Object.entries(data).map(([file, value]) => [file, value === null ? null : Buffer.from(value).toString('base64')]),
  );
}
