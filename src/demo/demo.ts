import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { CulvertError } from '../errors.ts';
import { openDoor } from './door.ts';
import { createScreen } from './screen.ts';
import { playStory } from './story.ts';
import { inUserNamespace, USER_NAMESPACE_HINT, USER_NAMESPACE_REFUSED } from './user-namespace.ts';
import { runWebServer } from './web-server.ts';

const HELP = `usage: culvert demo [--once] [--log]

Makes a node with five pods on this machine, as network namespaces, runs the agent, lets the pods talk, and shows what
happened. It stays up until Ctrl-C and then removes everything that it made. Works as root and, where user namespaces
are allowed, as an ordinary user.

  --once  end after the story; the exit code is 0 only if every check held
  --log   print the agent's log as it comes
`;

/** `culvert demo`: resolves with the exit code. */
export async function runDemo(argv: readonly string[]): Promise<number> {
  const [first, ...rest] = argv;
  // How the demo runs a web server inside a pod: itself once more.
  if (first === 'web-server') return runWebServer(rest[0]!, Number(rest[1]));
  const unknown = argv.filter((argument) => !['--once', '--log', '--help', '-h'].includes(argument));
  if (unknown.length > 0 || argv.includes('--help') || argv.includes('-h')) {
    if (unknown.length > 0) process.stderr.write(`unknown argument: ${unknown.join(' ')}\n\n`);
    (unknown.length > 0 ? process.stderr : process.stdout).write(HELP);
    return unknown.length > 0 ? 2 : 0;
  }
  const command = inUserNamespace([process.execPath, ...process.execArgv, ...process.argv.slice(1)]);
  return command === null ? perform(argv) : performInside(command);
}

async function perform(argv: readonly string[]): Promise<number> {
  const stop = new AbortController();
  const interrupted = (signal: NodeJS.Signals) => {
    // The second time, nobody wants to wait for tidying: what is left is removed when this process has ended.
    if (stop.signal.aborted) process.exit(128 + constants.signals[signal]);
    stop.abort(signal);
  };
  for (const signal of STOP_SIGNALS) process.on(signal, interrupted);
  try {
    return await playStory({
      screen: createScreen(process.stdout),
      stop: stop.signal,
      once: argv.includes('--once'),
      echoLog: argv.includes('--log') ? (line) => process.stdout.write(`   | ${line}\n`) : null,
    });
  } catch (error) {
    if (stop.signal.aborted) return 128 + constants.signals[stop.signal.reason as NodeJS.Signals];
    if (!(error instanceof CulvertError)) throw error;
    process.stderr.write(`\nThe demo cannot go on: ${error.message}\n`);
    return 1;
  } finally {
    for (const signal of STOP_SIGNALS) process.off(signal, interrupted);
  }
}

/** Without root: the demo runs in a user namespace, and this process keeps its doors to the user's network. */
async function performInside(command: readonly string[]): Promise<number> {
  const door = await openDoor({ admin: 15000, metrics: 15020 });
  const [program, ...args] = command;
  // Out of the terminal's reach: a Ctrl-C comes once, through this process, however it was sent.
  const child = spawn(program!, args, { stdio: 'inherit', detached: true, env: { ...process.env, ...door.env } });
  const forward = (signal: NodeJS.Signals) => child.kill(signal);
  for (const signal of STOP_SIGNALS) process.on(signal, forward);
  try {
    return await new Promise((resolve, reject) => {
      child.on('error', (cause) =>
        reject(
          new CulvertError('DEMO_UNAVAILABLE', `cannot run ${program}: ${cause.message}\n${USER_NAMESPACE_HINT}`, {
            cause,
          }),
        ),
      );
      child.on('exit', (code, signal) => {
        if (code === USER_NAMESPACE_REFUSED) process.stderr.write(USER_NAMESPACE_HINT);
        resolve(code ?? 128 + constants.signals[signal!]);
      });
    });
  } finally {
    for (const signal of STOP_SIGNALS) process.off(signal, forward);
    door.close();
  }
}

const STOP_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
