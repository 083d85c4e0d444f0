// What the set-up tells the user: one line per step that takes time, and errors that name the remedy.
import { spawn } from 'node:child_process';
import { createWriteStream, mkdirSync } from 'node:fs';
import { dirname, relative } from 'node:path';

const EXCERPT_LINES = 25;

/** A set-up step that cannot go on. The message says what is wrong and `remedy` what to do about it. */
export class SetupError extends Error {
  /**
   * @param {string} message
   * @param {string} remedy
   */
  constructor(message, remedy) {
    super(message);
    this.name = 'SetupError';
    this.remedy = remedy;
  }
}

/** Prints one line on stderr, so that the output of the command that follows stays clean. */
export function say(line) {
  process.stderr.write(`culvert set-up: ${line}\n`);
}

/**
 * Runs a program with its output kept in a log file, announced by one line. Its children end with this process.
 *
 * @param {{ title: string, command: string, args: string[], cwd: string, env: NodeJS.ProcessEnv, log: string, remedy: string }} step
 * @param {(pid: number) => void} [onStart] told the process id of the program
 * @throws {SetupError} with the telling lines of the output when the program fails or cannot be started
 */
export async function runStep({ title, command, args, cwd, env, log, remedy }, onStart) {
  say(`${title} …`);
  const started = Date.now();
  mkdirSync(dirname(log), { recursive: true });
  const sink = createWriteStream(log);
  const output = [];
  let interrupted = false;
  const { code, signal, error } = await new Promise((resolve) => {
    const child = spawn(command, args, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] });
    const forward = (name) => {
      interrupted = true;
      child.kill(name);
    };
    if (child.pid !== undefined) onStart?.(child.pid);
    process.on('SIGTERM', forward);
    process.on('SIGINT', forward);
    const keep = (chunk) => {
      sink.write(chunk);
      output.push(chunk);
    };
    child.stdout.on('data', keep);
    child.stderr.on('data', keep);
    const finish = (outcome) => {
      process.off('SIGTERM', forward);
      process.off('SIGINT', forward);
      resolve(outcome);
    };
    child.on('error', (error) => finish({ code: null, signal: null, error }));
    child.on('close', (code, signal) => finish({ code, signal, error: null }));
  });
  sink.end();
  if (code === 0) {
    say(`${title}: done in ${((Date.now() - started) / 1000).toFixed(1)} s`);
    return;
  }
  if (interrupted) throw new SetupError(`${title}: interrupted`, 'run the command again when you want to go on');
  const reason = error ? error.message : signal ? `ended by ${signal}` : `exit status ${code}`;
  const lines = excerpt(Buffer.concat(output).toString());
  throw new SetupError(
    `${title} failed: ${command} ${args.join(' ')}: ${reason}\n${lines.map((line) => `  | ${line}`).join('\n')}`,
    `${remedy} (full output: ${relative(process.cwd(), log) || log})`,
  );
}

/** The lines from the first one that speaks of an error, else the last ones. */
function excerpt(output) {
  const lines = output.trimEnd().split('\n');
  const first = lines.findIndex((line) => /\berror\b/i.test(line));
  return first === -1 ? lines.slice(-EXCERPT_LINES) : lines.slice(first, first + EXCERPT_LINES);
}
