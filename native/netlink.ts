/** Netlink sockets. Errors have the name of the errno as their `code`. */
import { addon } from './load.ts';

/** Protocols, of linux/netlink.h. */
export const NETLINK_ROUTE = 0;
export const NETLINK_NETFILTER = 12;

/**
 * Sends requests to the kernel about one namespace (OWN_NETNS for the process's own), in one packet, and resolves with all
 * the answers, one after another. It runs on a thread of the pool: the kernel may let the caller wait. The namespace's
 * descriptor is used before this returns. Nobody but the kernel can answer, whoever else is in the namespace.
 * @throws, or rejects with, the errno of making the socket, sending or receiving; EMSGSIZE for more than 1 MiB of answers,
 * ETIMEDOUT when they do not end within 5 s
 */
export const netlinkExchange = (
  addon as { netlinkExchange(netns: number, protocol: number, request: Uint8Array): Promise<Buffer> }
).netlinkExchange;
