/** What commands that ask an admin port have in common. */
import { type ParseArgsOptionsConfig, parseArgs } from 'node:util';
import { messageOf } from '../errors.ts';
import { parsePort } from '../netns/address.ts';

export interface Terminal {
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
}

/** Options that each of them has. */
const COMMON = {
  admin: { type: 'string' },
  json: { type: 'boolean', default: false },
  help: { type: 'boolean', default: false, short: 'h' },
} as const satisfies ParseArgsOptionsConfig;

/**
 * Reads the arguments, and the port from `--admin` or CULVERT_ADMIN_PORT. What there is to say to wrong or asked-for usage is
 * said; then there is only the exit code.
 */
export function readAdminCommand<const Options extends ParseArgsOptionsConfig>(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  write: Terminal,
  { usage, options }: { readonly usage: string; readonly options: Options },
) {
  const parse = () => parseArgs({ args: [...argv], options: { ...options, ...COMMON } }).values;
  let given: ReturnType<typeof parse>;
  try {
    given = parse();
  } catch (error) {
    write.err(`${messageOf(error)}\n\n${usage}`);
    return { kind: 'ended', code: 2 } as const;
  }
  const { admin, help } = given as { admin?: string; help: boolean };
  if (help) {
    write.out(usage);
    return { kind: 'ended', code: 0 } as const;
  }
  const port = parsePort(admin ?? env.CULVERT_ADMIN_PORT ?? '15000');
  if (port === null || port === 0) {
    write.err('--admin (or CULVERT_ADMIN_PORT) is no port: a number from 1 to 65535 is accepted\n');
    return { kind: 'ended', code: 2 } as const;
  }
  return { kind: 'asked', given, port } as const;
}
