// The npm scripts: each task brings the checkout up to date, then runs its steps under the pinned Node.
//
//   node scripts/task.mjs <test|check|demo|bench|build|image|test:cluster|test:asan> [arguments]
import { execFileSync, spawn } from 'node:child_process';
import { constants } from 'node:os';
import { pinnedNode, root, toolEnvironment } from './setup/layout.mjs';
import { addonFile, needs, orExplain, setUp } from './setup.mjs';

// A hung test names itself instead of hanging the run. The slowest honest test takes half a minute, ten times as long on a busy machine.
const TEST_TIMEOUT_MS = 300_000;
const testFlags = ['--test', '--test-concurrency=2', `--test-timeout=${TEST_TIMEOUT_MS}`];

const types = ['node_modules/typescript/bin/tsc', '-p', '.'];
const lint = ['node_modules/@biomejs/biome/bin/biome', 'ci', '--colors=off', '.'];

/**
 * A task: what it needs, and its steps (arguments of the pinned Node), each run only after the one before succeeded.
 *
 * @type {Record<string, { needs: import('./setup.mjs').Needs, steps: (rest: string[]) => string[][], env?: () => Record<string, string> }>}
 */
const tasks = {
  check: { needs: needs.tools, steps: () => [types, lint] },
  test: {
    needs: needs.tests,
    steps: (rest) => [types, lint, [...testFlags, ...(rest.length > 0 ? rest : ['test/**/*.test.ts'])]],
  },
  demo: { needs: needs.pods, steps: (rest) => [['src/cli.ts', 'demo', ...rest]] },
  bench: {
    needs: needs.bench,
    steps: (rest) => [
      ['scripts/bundle.mjs', '--quiet'],
      // What is measured in the same process is measured as in the agent (bin/culvert).
      ['--max-semi-space-size=4', 'bench/main.ts', ...rest],
    ],
  },
  build: { needs: needs.run, steps: (rest) => [['scripts/bundle.mjs', ...rest]] },
  image: {
    needs: needs.pods,
    steps: (rest) => [
      ['scripts/bundle.mjs', '--quiet'],
      ['scripts/image.mjs', ...rest],
    ],
  },
  'test:cluster': {
    needs: needs.pods,
    steps: (rest) => [
      ['scripts/bundle.mjs', '--quiet'],
      ['scripts/image.mjs', '--quiet'],
      ['--test', ...rest, 'test/cluster/all.ts'],
    ],
  },
  'test:asan': {
    needs: needs.asan,
    steps: (rest) => [[...testFlags, ...(rest.length > 0 ? rest : ['test/{native,netns,relay,zds}/**/*.test.ts'])]],
    env: asanEnvironment,
  },
};

/**
 * For an addon with the address sanitizer in a program without: the run-time library is loaded first. Leaks are not
 * looked for, because Node itself leaves its heap to the kernel when it exits.
 */
function asanEnvironment() {
  const library = execFileSync('c++', ['-print-file-name=libasan.so'], { encoding: 'utf8' }).trim();
  return {
    LD_PRELOAD: library,
    CULVERT_ADDON: addonFile('asan'),
    ASAN_OPTIONS: 'detect_leaks=0:abort_on_error=1:use_sigaltstack=0',
  };
}

/** Runs the pinned Node and resolves to its exit status; signals sent to this process reach it. */
function runNode(args, env) {
  return new Promise((resolve, reject) => {
    const child = spawn(pinnedNode, args, { cwd: root, env, stdio: 'inherit' });
    // A terminal sends Ctrl-C to both; a supervisor sends its signal to this process only.
    const forwarded = ['SIGTERM', 'SIGHUP'];
    const forward = (signal) => child.kill(signal);
    const ignore = () => {};
    for (const signal of forwarded) process.on(signal, forward);
    process.on('SIGINT', ignore);
    child.on('error', reject);
    child.on('exit', (code, signal) => {
      for (const name of forwarded) process.off(name, forward);
      process.off('SIGINT', ignore);
      resolve(code ?? 128 + constants.signals[signal]);
    });
  });
}

const [name = '', ...rest] = process.argv.slice(2);
const task = tasks[name];
if (!task) {
  process.stderr.write(`usage: node scripts/task.mjs <${Object.keys(tasks).join('|')}> [arguments]\n`);
  process.exit(2);
}
await orExplain(() => setUp(task.needs));
const env = { ...toolEnvironment(), ...task.env?.() };
for (const step of task.steps(rest)) {
  const status = await runNode(step, env);
  if (status !== 0) process.exit(status);
}
