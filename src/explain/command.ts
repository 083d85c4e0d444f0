/** `culvert explain`: asks the agent of this node. */
import { parseArgs } from 'node:util';
import { fetchAdmin } from '../admin/fetch-admin.ts';
import { messageOf } from '../errors.ts';
import { parsePort } from '../netns/address.ts';
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
  write: { readonly out: (text: string) => void; readonly err: (text: string) => void },
): Promise<number> {
  let given: ReturnType<typeof parse>;
  try {
    given = parse(argv);
  } catch (error) {
    write.err(`${messageOf(error)}\n\n${USAGE}`);
    return 2;
  }
  if (given.help) {
    write.out(USAGE);
    return 0;
  }
  const port = parsePort(given.admin ?? env.CULVERT_ADMIN_PORT ?? '15000');
  if (port === null || port === 0) {
    write.err(`--admin (or CULVERT_ADMIN_PORT) is no port: a number from 1 to 65535 is accepted\n`);
    return 2;
  }
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

function parse(argv: readonly string[]) {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      from: { type: 'string' },
      to: { type: 'string' },
      port: { type: 'string' },
      connection: { type: 'string' },
      admin: { type: 'string' },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false, short: 'h' },
    },
  });
  return values;
}

function print(answer: Explanation | ExplainedConnection): string {
  return 'connection' in answer ? printConnection(answer) : printExplanation(answer);
}
