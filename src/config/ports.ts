/** Ports inside a pod's namespace. The capture rules and every peer in the mesh rely on them, so they are not settings. */
export const OUTBOUND_PORT = 15001;
export const INBOUND_PLAINTEXT_PORT = 15006;
export const INBOUND_HBONE_PORT = 15008;

/** Ports that no proxied connection may end at: it would come back to the agent and loop. In the order of the config dump. */
export const ILLEGAL_PORTS: readonly number[] = [INBOUND_HBONE_PORT, INBOUND_PLAINTEXT_PORT, OUTBOUND_PORT];
