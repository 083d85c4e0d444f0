/** The `culvert` command. */
import { CulvertError, messageOf } from './errors.ts';
import { VERSION } from './version.ts';

const HELP = `culvert ${VERSION}: a node-local tunnel agent for Kubernetes

usage: culvert <command>

  agent            run the agent of this node (settings: environment variables, docs/configuration.md)
  proxy [ztunnel]  the same, under the name that ztunnel's container arguments use
  cni              run the node agent of this node, which enrols its pods
  control          run the control plane of a mesh that has no other
  status           what the control plane serves to whom, and what it rejects (culvert status --help)
  explain          why a connection goes where it goes, and is allowed or denied (culvert explain --help)
  demo [--once]    pods in network namespaces on this machine, talking through the tunnels
  version          print the version
  help             print this

Without a command it is the agent, as in ztunnel's image.
`;

const FOLLOW_THE_ENVIRONMENT = ['agent', 'proxy', 'cni', 'control'];
const SETTINGS_HINT = 'its settings are environment variables: docs/configuration.md';

const terminal = {
  out: (text: string) => void process.stdout.write(text),
  err: (text: string) => void process.stderr.write(text),
};

/** Runs a command; resolves with the exit code. */
async function main(argv: readonly string[]): Promise<number> {
  // The incumbent's image runs `proxy` when it is given nothing (spec §0).
  const [command = 'proxy', ...rest] = argv;
  if (FOLLOW_THE_ENVIRONMENT.includes(command) && rest.length > 0) {
    if (rest.includes('--help') || rest.includes('-h')) return main(['help']);
    if (command === 'control') {
      terminal.err(`culvert control takes no arguments, and got: ${rest.join(' ')}\n${SETTINGS_HINT}\n`);
      return 2;
    }
    // An image that is swapped for the incumbent's gets the incumbent's arguments: a node must not go without for them.
    if (command !== 'proxy')
      terminal.err(`culvert ${command} ignores its arguments: ${rest.join(' ')}\n${SETTINGS_HINT}\n`);
  }
  switch (command) {
    case 'agent':
    case 'proxy': {
      const { runAgent } = await import('./agent.ts');
      return runAgent(process.env, [command, ...rest]);
    }
    case 'cni': {
      const { runNodeAgent } = await import('./cni/node-agent.ts');
      return runNodeAgent(process.env);
    }
    case 'control': {
      const { runControl } = await import('./control/control-plane.ts');
      return runControl(process.env);
    }
    case 'status': {
      const { runStatus } = await import('./control/status/command.ts');
      return runStatus(rest, process.env, terminal);
    }
    case 'explain': {
      const { runExplain } = await import('./explain/command.ts');
      return runExplain(rest, process.env, terminal);
    }
    case 'demo': {
      const { runDemo } = await import('./demo/demo.ts');
      return runDemo(rest);
    }
    case 'version':
    case '--version':
      process.stdout.write(`culvert ${VERSION} (node ${process.versions.node}, openssl ${process.versions.openssl})\n`);
      return 0;
    case 'help':
    case '--help':
    case '-h':
      process.stdout.write(HELP);
      return 0;
    default:
      process.stderr.write(`unknown command: ${command}\n\n${HELP}`);
      return 1;
  }
}

main(process.argv.slice(2)).then(
  (code) => {
    process.exitCode = code;
    // Whatever is still open (a keep-alive connection of a scraper) must not hold the process.
    setTimeout(() => process.exit(code), 500).unref();
  },
  (error) => {
    process.stderr.write(
      `culvert: ${error instanceof CulvertError ? error.message : ((error as Error).stack ?? messageOf(error))}\n`,
    );
    process.exit(1);
  },
);
