// Programs that come from the distribution, by the Debian package that has them.
import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';
import { cache, root, toolEnvironment } from './layout.mjs';
import { runStep, SetupError } from './report.mjs';

const packageOf = {
  ip: 'iproute2',
  nft: 'nftables',
  iptables: 'iptables',
  curl: 'curl',
  openssl: 'openssl',
  wrk: 'wrk',
  iperf3: 'iperf3',
  haproxy: 'haproxy',
  nghttp: 'nghttp2-client',
  h2load: 'nghttp2-client',
  nghttpx: 'nghttp2-proxy',
  'c++': 'g++',
  make: 'make',
  python3: 'python3',
};

/** What building the addon takes. */
export const buildPrograms = ['c++', 'make', 'python3'];
/** What pods on one machine take: the demo and the tests. */
export const podPrograms = ['ip', 'nft', 'iptables', 'curl', 'openssl'];
/** What the tests take on top: independent peers. */
export const testPrograms = ['nghttp', 'h2load', 'nghttpx'];
/** What the benchmarks take on top. */
export const benchPrograms = ['wrk', 'iperf3', 'haproxy'];

/** The programs among `programs` that are not on this machine. */
export function missingPrograms(programs) {
  const folders = (toolEnvironment().PATH ?? '').split(':');
  return programs.filter((program) => !folders.some((folder) => isExecutable(join(folder, program))));
}

/**
 * Installs the packages of `programs` with apt-get when this is root on a Debian-like system and CULVERT_NO_APT is not
 * set; otherwise fails with one message that names them all.
 *
 * @param {string[]} programs
 * @param {(pid: number) => void} [holdFor] told each program that this starts
 */
export async function installPackagesOf(programs, holdFor) {
  const packages = [...new Set(programs.map((program) => packageOf[program]))].sort();
  const byHand = `apt-get install -y ${packages.join(' ')}`;
  const refusal = refusalReason();
  if (refusal !== null) {
    throw new SetupError(
      `these programs are missing: ${programs.join(', ')} (Debian packages: ${packages.join(' ')}). ${refusal}`,
      `install them, on Debian as root: ${byHand}`,
    );
  }
  const apt = (title, args) =>
    runStep(
      {
        title,
        command: 'apt-get',
        args,
        cwd: root,
        env: { ...toolEnvironment(), DEBIAN_FRONTEND: 'noninteractive' },
        log: join(cache, `apt-get-${args[0]}.log`),
        remedy: `install them by hand: ${byHand}`,
      },
      holdFor,
    );
  const install = () =>
    apt(`installing ${packages.join(' ')} (apt-get)`, ['install', '-y', '--no-install-recommends', ...packages]);
  try {
    await install();
  } catch {
    // A fresh image has no package lists, or outdated ones.
    await apt('reading package lists (apt-get update)', ['update']);
    await install();
  }
  const still = missingPrograms(programs);
  if (still.length > 0) {
    throw new SetupError(`apt-get went well, but these are still missing: ${still.join(', ')}`, `try: ${byHand}`);
  }
}

function refusalReason() {
  if (process.getuid() !== 0) return 'Only root can install them';
  if (process.env.CULVERT_NO_APT) return 'CULVERT_NO_APT forbids installing them';
  if (missingPrograms(['apt-get']).length > 0) return 'There is no apt-get here';
  return null;
}

function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
