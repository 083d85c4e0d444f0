import { readdirSync, readFileSync, statSync } from 'node:fs';
import { setImmediate as turn } from 'node:timers/promises';
import { canonicalIp } from '../../netns/address.ts';
import { type NetnsHandle, openNetnsHandle } from '../../netns/handle.ts';

/**
 * Finds the network namespaces of running pods by their processes (spec node-06). A namespace is a pod's only when one of
 * the pod's addresses is in it: a process of one pod may have entered the namespace of another.
 * @param proc where the node's /proc is mounted
 * @param wanted addresses by the pod's uid; canonical
 * @returns a handle for each pod that was found; they are the caller's
 */
export async function findPodNamespaces(
  proc: string,
  wanted: ReadonlyMap<string, readonly string[]>,
): Promise<Map<string, NetnsHandle>> {
  const found = new Map<string, { readonly netns: NetnsHandle; readonly startTime: number }>();
  if (wanted.size === 0) return new Map();
  const node = namespaceKey(`${proc}/1/ns/net`);
  let visited = 0;
  for (const pid of readdirSync(proc)) {
    if (!/^\d+$/.test(pid)) continue;
    // A node has thousands of processes, and other pods wait for this thread.
    if (++visited % PROCESSES_PER_TURN === 0) await turn();
    const folder = `${proc}/${pid}`;
    const key = namespaceKey(`${folder}/ns/net`);
    if (key === null || key === node) continue;
    const uid = ownerOf(folder);
    const ips = uid === null ? undefined : wanted.get(uid);
    if (uid === null || ips === undefined) continue;
    const before = found.get(uid);
    if (before?.netns.key === key) continue;
    const startTime = startTimeOf(folder);
    // The process that is oldest began with the pod; a younger one may have moved.
    if (before !== undefined && startTime > before.startTime) continue;
    if (!ips.some((ip) => localAddresses(folder).has(ip))) continue;
    const netns = openQuietly(`${folder}/ns/net`);
    if (netns === null) continue;
    if (netns.key !== key) {
      // The process has moved, or another has its number: what was checked is not what was opened.
      netns.close();
      continue;
    }
    before?.netns.close();
    found.set(uid, { netns, startTime });
  }
  return new Map([...found].map(([uid, { netns }]) => [uid, netns]));
}

/**
 * The uid of the pod that a process belongs to, from its cgroups (`/proc/PID/cgroup`): versions 1 and 2, drivers systemd
 * and cgroupfs, any runtime. Null for no pod, and when the lines disagree.
 */
export function podUidOfCgroups(cgroups: string): string | null {
  let uid: string | null = null;
  for (const line of cgroups.split('\n')) {
    if (line === '') continue;
    const path = line.split(':').slice(2).join(':');
    const match = path.length > MAX_PATH ? null : POD_CGROUP.exec(path.replace(/\.scope$/, ''));
    if (match === null) continue;
    const named = dashed(match[1]!.replace(/[^0-9a-f]/g, ''));
    if (uid !== null && uid !== named) return null;
    uid = named;
  }
  return uid;
}

/**
 * The uid that the cgroups of a pod carry: of a static pod it is the kubelet's, a hash that is written like a uid; the
 * API server has given its mirror another.
 */
export function uidInCgroups({ uid, staticUid }: { readonly uid: string; readonly staticUid: string | null }): string {
  const hex = staticUid?.replaceAll('-', '') ?? '';
  return /^[0-9a-f]{32}$/.test(hex) ? dashed(hex) : uid;
}

/** Addresses that are local according to `/proc/PID/net/fib_trie`. */
export function localIpv4(fibTrie: string): string[] {
  const found: string[] = [];
  let address = '';
  for (const line of fibTrie.split('\n')) {
    const leaf = /\|-- (\d+\.\d+\.\d+\.\d+)$/.exec(line)?.[1];
    if (leaf !== undefined) address = leaf;
    else if (line.endsWith('/32 host LOCAL')) found.push(address);
  }
  return [...new Set(found)];
}

/** Addresses in `/proc/PID/net/if_inet6`, canonical. */
export function localIpv6(ifInet6: string): string[] {
  return ifInet6.split('\n').flatMap((line) => {
    const hex = /^([0-9a-f]{32}) /.exec(line)?.[1];
    return hex === undefined ? [] : (canonicalIp(hex.replace(/(.{4})(?=.)/g, '$1:')) ?? []);
  });
}

/** Field 22 of `/proc/PID/stat`, counted behind the name, which may hold anything. Infinity when it cannot be read. */
export function startTimeIn(stat: string): number {
  const value = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]);
  return Number.isFinite(value) ? value : Number.POSITIVE_INFINITY;
}

const PROCESSES_PER_TURN = 64;
/** PATH_MAX: the expression's time grows with the square of the length. */
const MAX_PATH = 4096;
const PUNCT = '[!-/:-@[-`{-~]';
const OTHER = '[^!-/:-@[-`{-~]';
const POD_CGROUP = new RegExp(
  `${PUNCT}pod([0-9a-f]{8}${PUNCT}?[0-9a-f]{4}${PUNCT}?[0-9a-f]{4}${PUNCT}?[0-9a-f]{4}${PUNCT}?[0-9a-f]{12})` +
    `${PUNCT}(?:${OTHER}+${PUNCT})*${OTHER}+$`,
);

function dashed(hex: string): string {
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}

function ownerOf(folder: string): string | null {
  const cgroups = readQuietly(`${folder}/cgroup`);
  return cgroups === null ? null : podUidOfCgroups(cgroups);
}

function startTimeOf(folder: string): number {
  return startTimeIn(readQuietly(`${folder}/stat`) ?? '');
}

/** What a process's namespace has, as its own /proc/PID/net says; no need to enter it. */
function localAddresses(folder: string): Set<string> {
  return new Set([
    ...localIpv4(readQuietly(`${folder}/net/fib_trie`) ?? ''),
    ...localIpv6(readQuietly(`${folder}/net/if_inet6`) ?? ''),
  ]);
}

/** As NetnsHandle.key; null when the process has gone. */
function namespaceKey(path: string): string | null {
  try {
    const { dev, ino } = statSync(path);
    return `${dev}:${ino}`;
  } catch {
    return null;
  }
}

function openQuietly(path: string): NetnsHandle | null {
  try {
    return openNetnsHandle(path);
  } catch {
    return null;
  }
}

/** Processes end at any time; what cannot be read is not there. */
function readQuietly(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null;
  }
}
