/** `culvert explain`: asks the agent of this node. */
import { readAdminCommand, type Terminal } from '../admin/admin-command.ts';
import { fetchAdmin } from '../admin/fetch-admin.ts';
import { printConnection, printExplanation } from './print.ts';
import type { ExplainedConnection, Explanation } from './types.ts';

const USAGE = `usage: culvert explain --from <source> --to <destination> [--port <port>] [--json] [--admin <port>]
       culvert explain --connection <id> [--json] [--admin <port>]

  --from        namespace/pod, an address, a uid or an identity (spiffe://…)
  --to          a service (host name, name.namespace), namespace/pod or an address, with :port or --port
  --connection  a live connection: its id in the config dump
  --json        print the answer as the agent gives it
  --admin       admin port of the agent on this machine (default: CULVERT_ADMIN_PORT, or 15000)
`;

/** Resolves with the exit code: 0 answered, 1 the agent did not answer or not to that, 2 wrong usage. */
export async function runExplain(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  write: Terminal,
): Promise<number> {
  const command = readAdminCommand(argv, env, write, { usage: USAGE, options: OPTIONS });
  if (command.kind === 'ended') return command.code;
  const { given, port } = command;
  const query = new URLSearchParams();
  for (const name of ['from', 'to', 'port', 'connection'] as const) {
    const value = given[name];
    if (value !== undefined) query.set(name, value);
  }
  const { status, body } = await fetchAdmin('agent', port, `/explain?${query}`);
  if (status !== 200) {
    // The sentence; what follows is how HTTP is used.
    write.err(
      `culvert explain: ${status === 400 ? body.split('\n')[0] : `the agent answered ${status}: ${body.trim()}`}\n`,
    );
    return 1;
  }
  write.out(given.json ? body : print(JSON.parse(body)));
  return 0;
}

const OPTIONS = {
  from: { type: 'string' },
  to: { type: 'string' },
  port: { type: 'string' },
  connection: { type: 'string' },
} as const;

function print(answer: Explanation | ExplainedConnection): string {
  return 'connection' in answer ? printConnection(answer) : printExplanation(answer);
}
