/**
 * How long anything in a test may take before it counts as hung, in ms: a machine with ten times as much to do as it has
 * processors is slow, and no reason to fail. Nothing waits for it to pass.
 */
export const PATIENCE_MS = 60_000;
