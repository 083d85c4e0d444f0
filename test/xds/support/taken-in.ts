/** Responses taken in without a connection. */
import { createLocalLayer } from '../../../src/state/local-layer.ts';
import type { MeshStore } from '../../../src/state/mesh-state.ts';
import { Intake, type TakenIn } from '../../../src/xds/intake.ts';

export function intakeOf(store: MeshStore, localNode = '', monotonic?: () => number): Intake {
  const intake: Intake = new Intake({
    store,
    localNode,
    now: Date.now,
    ...(monotonic === undefined ? {} : { monotonic }),
    collectNames: true,
    underlay: createLocalLayer(store, {
      hasAddress: (name) => intake.addresses.has(name),
      hasPolicy: (name) => intake.authorizations.has(name),
    }),
  });
  return intake;
}

/** Takes in a whole response that arrives in pieces. */
export function takeIn(intake: Intake, bytes: Buffer, pieceSize = bytes.length): TakenIn {
  const response = intake.begin();
  for (let at = 0; at < bytes.length; at += pieceSize) {
    for (const _ of response.push(bytes.subarray(at, at + pieceSize)));
  }
  const steps = response.end();
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
  }
}
