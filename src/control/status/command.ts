/** `culvert status`: asks the control plane of this pod. */
import { readAdminCommand, type Terminal } from '../../admin/admin-command.ts';
import { fetchAdmin } from '../../admin/fetch-admin.ts';
import type { WatchStatus } from '../ads/status.ts';
import type { ControlStatus } from './report.ts';

const USAGE = `usage: culvert status [--json] [--admin <port>]

Shows one replica of the control plane: the agents that are connected to it and what they have, objects that are rejected, and
the roots of the mesh. In Kubernetes: kubectl exec -n culvert-system deploy/culvert-control -- culvert status

  --json   print the answer as the control plane gives it
  --admin  admin port of the control plane on this machine (default: CULVERT_ADMIN_PORT, or 15000)
`;

/** Resolves with the exit code: 0 all is well, 1 it does not answer or is not ready, 2 wrong usage. */
export async function runStatus(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  write: Terminal,
): Promise<number> {
  const command = readAdminCommand(argv, env, write, { usage: USAGE, options: {} });
  if (command.kind === 'ended') return command.code;
  const { given, port } = command;
  const { status, body } = await fetchAdmin('control plane', port, '/status');
  if (status !== 200) {
    const hint = status === 404 ? 'this is no control plane' : body.trim();
    write.err(`culvert status: port ${port} answered ${status}: ${hint}\n`);
    return 1;
  }
  const report = JSON.parse(body) as ControlStatus;
  write.out(given.json ? body : print(report, Date.now()));
  return report.pending.length === 0 ? 0 : 1;
}

/** @param now ms since 1970 */
export function print(report: ControlStatus, now: number): string {
  const { version, replica, isLeader, pending, resources, clients, rejected, problems, roots } = report;
  return [
    `control plane  culvert ${version}, ${replica}${isLeader ? ', which writes' : ''}, ${pending.length === 0 ? 'ready' : `waits for ${pending.join(', ')}`}`,
    `serves         ${resources.addresses} addresses, ${resources.policies} policies`,
    ...roots.map(
      ({ subject, fingerprint, notAfter }, index) =>
        `${index === 0 ? 'root           signs:  ' : '               trusted:'} ${subject}, until ${notAfter} (${inDays(notAfter, now)}), ${fingerprint.slice(0, 23)}…`,
    ),
    ...(roots.length === 0 ? ['root           none yet'] : []),
    '',
    `agents         ${clients.length} connected to this replica`,
    ...clients.flatMap(({ node, id, address, types }) => [
      `  ${node || id || 'unknown'}  ${address}`,
      ...types.map((type) => `    ${printWatch(type)}`),
    ]),
    ...(rejected.length === 0
      ? []
      : [
          '',
          'rejected       the last good version stays in force; a policy that has none denies what it may select',
          ...rejected.map(({ kind, object, reason }) => `  ${kind} ${object}: ${reason}`),
        ]),
    ...(problems.length === 0
      ? []
      : ['', 'problems       what was read before stays in force', ...problems.map((problem) => `  ${problem}`)]),
    '',
  ].join('\n');
}

function printWatch({
  typeUrl,
  sent,
  acknowledged,
  unacknowledgedMs,
  waiting,
  rejections,
  lastRejection,
}: WatchStatus) {
  const type = typeUrl.slice(typeUrl.lastIndexOf('.') + 1);
  const has = acknowledged === null ? 'has acknowledged nothing yet' : `has ${acknowledged.version}`;
  const state =
    unacknowledgedMs === null
      ? waiting === 0
        ? 'up to date'
        : `${waiting} changes wait`
      : `${sent?.version} is unanswered for ${unacknowledgedMs} ms`;
  const refused = lastRejection === null ? '' : `, rejected ${rejections} times, the last: ${lastRejection.reason}`;
  return `${type}: ${has}, ${state}${refused}`;
}

function inDays(end: string, now: number): string {
  const days = Math.floor((Date.parse(end) - now) / 86_400_000);
  return days < 0 ? 'OVER' : `${days} days`;
}
