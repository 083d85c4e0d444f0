import { readFileSync } from 'node:fs';

/**
 * How an ordinary user gets the rights that making pods takes: the command that runs `argv` as root of a new user
 * namespace, with its own network and mounts, and an empty /run for the names of namespaces. It ends with its parent.
 *
 * Null when the caller has these rights already, as root of the machine or of such a namespace.
 */
export function inUserNamespace(argv: readonly string[]): string[] | null {
  const privileged = process.geteuid!() === 0 && hasCapabilities();
  return privileged
    ? null
    : ['unshare', '--user', '--map-root-user', '--net', '--mount', 'sh', '-c', PREPARE, 'sh', ...argv];
}

/** What to tell a user whose machine refuses. */
export const USER_NAMESPACE_HINT =
  'making pods takes root or unprivileged user namespaces; a system that forbids these allows them again with\n' +
  '  sysctl kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000 kernel.apparmor_restrict_unprivileged_userns=0\n';

/** Exit status of the command of `inUserNamespace` when the machine refuses. */
export const USER_NAMESPACE_REFUSED = 77;

const PREPARE = `
PATH=$PATH:/usr/sbin:/sbin
mount -t tmpfs -o mode=755 culvert /run && ip link set lo up || exit ${USER_NAMESPACE_REFUSED}
exec setpriv --pdeathsig TERM -- "$@"
`;

const CAP_NET_ADMIN = 12n;
const CAP_SYS_ADMIN = 21n;

function hasCapabilities(): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0';
  const needed = (1n << CAP_NET_ADMIN) | (1n << CAP_SYS_ADMIN);
  return (BigInt(`0x${effective}`) & needed) === needed;
}
