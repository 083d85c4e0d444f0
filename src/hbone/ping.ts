/** Why a PING is sent (RFC 9113 §6.7): its last octet. Each waits for its own acknowledgement. */
export const PingPurpose = { KEEP_ALIVE: 0, ROUND_TRIP: 1, LAST_STREAM: 2 } as const;

export type PingPurpose = (typeof PingPurpose)[keyof typeof PingPurpose];

/** Opaque data by purpose. */
export const PING_PAYLOADS: readonly Uint8Array[] = [0, 1, 2].map((purpose) =>
  Uint8Array.from([...Buffer.from('culvert', 'latin1'), purpose]),
);

/** What an acknowledgement answers; null when that is nothing of ours. */
export function pingPurpose(bytes: Uint8Array, offset: number): PingPurpose | null {
  const purpose = bytes[offset + 7]!;
  const payload = PING_PAYLOADS[purpose];
  if (payload === undefined) return null;
  for (let i = 0; i < payload.length; i++) if (payload[i] !== bytes[offset + i]) return null;
  return purpose as PingPurpose;
}
