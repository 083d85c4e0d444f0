// Everything that is in the image: Node, the bundle, and the programs of the distribution that set rules in pods, each
// with the shared libraries that it loads. No shell and no package manager: nothing to run for who gets in.
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, realpathSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { pinnedNode, root, toolEnvironment } from '../setup/layout.mjs';
import { missingPrograms } from '../setup/packages.mjs';
import { SetupError } from '../setup/report.mjs';

/** What iptables takes to run in a pod (src/netns/run.ts), and what shows the rules that the node agent sets by itself. */
const programs = ['nsenter', 'nft'];
/** Of iptables there are two programs under many names; one of them is enough. */
const iptables = {
  'xtables-nft-multi': ['iptables-nft', 'ip6tables-nft', 'iptables', 'ip6tables'],
  'xtables-legacy-multi': ['iptables-legacy', 'ip6tables-legacy'],
};

/** Where the bundle is in the image. */
export const HOME = 'opt/culvert';

/**
 * @param {Uint8Array} sbom
 * @returns {import('./tar.mjs').Entry[]} folders before what is in them
 */
export function rootfs(sbom) {
  /** @type {Map<string, import('./tar.mjs').Entry>} */
  const entries = new Map();
  const put = (entry) => entries.set(entry.path, entry);
  const copy = (from, path = from.slice(1), mode = 0o555) => put({ path, mode, data: readFileSync(from) });
  const withLibraries = (from, path) => {
    copy(from, path);
    for (const library of librariesOf(from)) copy(library);
  };

  withLibraries(pinnedNode, `${HOME}/node`);
  for (const name of readdirSync(join(root, 'dist'))) {
    if (/\.(mjs|node|txt)$/.test(name)) copy(join(root, 'dist', name), `${HOME}/${name}`, 0o444);
  }
  copy(join(root, 'dist/culvert-cni'), `${HOME}/culvert-cni`);
  // For `kubectl exec`: the kernel runs it without a shell.
  put({
    path: 'usr/bin/culvert',
    mode: 0o555,
    data: Buffer.from(`#!/${HOME}/node\nimport('/${HOME}/culvert.mjs');\n`),
  });
  copy(join(root, 'LICENSE'), `${HOME}/LICENSE`, 0o444);
  put({ path: `${HOME}/sbom.spdx.json`, data: sbom });
  for (const program of programs) withLibraries(find(program), `usr/sbin/${program}`);
  for (const [program, names] of Object.entries(iptables)) {
    if (missingPrograms([program]).length > 0) continue;
    withLibraries(find(program), `usr/sbin/${program}`);
    for (const name of names) {
      for (const suffix of ['', '-save', '-restore']) put({ path: `usr/sbin/${name}${suffix}`, target: program });
    }
  }
  for (const extension of extensionsOfIptables()) withLibraries(extension, extension.slice(1));
  put({ path: 'etc/passwd', data: Buffer.from('root:x:0:0:root:/:/nonexistent\n') });
  put({ path: 'etc/group', data: Buffer.from('root:x:0:\n') });
  // The owner match of iptables looks users up; it must not ask the network of a pod that is being set up.
  put({ path: 'etc/nsswitch.conf', data: Buffer.from('passwd: files\ngroup: files\nhosts: files dns\n') });
  for (const path of ['tmp', 'run', 'proc', 'sys', 'dev', 'var', 'host']) put({ path });
  put({ path: 'var/run', target: '../run' });
  return withFolders(entries);
}

function find(program) {
  const folders = (toolEnvironment().PATH ?? '').split(':');
  const found = folders.map((folder) => join(folder, program)).find((path) => existsSync(path));
  if (found === undefined) {
    throw new SetupError(
      `the image needs ${program}, which is not on this machine`,
      'install it (Debian packages: util-linux nftables iptables)',
    );
  }
  return realpathSync(found);
}

/** Shared libraries by the paths under which they are loaded; the loader among them. */
function librariesOf(file) {
  let output;
  try {
    output = execFileSync('ldd', [file], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  } catch {
    return []; // A static program.
  }
  return [...output.matchAll(/(?:=> )?(\/\S+) \(0x/g)].map((match) => match[1]);
}

function extensionsOfIptables() {
  const folder = ['/usr/lib', '/lib']
    .flatMap((lib) => ['x86_64-linux-gnu', 'aarch64-linux-gnu', ''].map((triple) => join(lib, triple, 'xtables')))
    .find((path) => existsSync(path));
  if (folder === undefined) return [];
  const wanted =
    /^lib(xt|ipt|ip6t)_(standard|tcp|udp|mark|MARK|connmark|CONNMARK|comment|owner|CT|NAT|REDIRECT|SNAT|DNAT)\.so$/;
  return readdirSync(folder)
    .filter((name) => wanted.test(name))
    .map((name) => join(folder, name));
}

function withFolders(entries) {
  const folders = new Map();
  for (const { path } of entries.values()) {
    for (let at = dirname(path); at !== '.'; at = dirname(at)) if (!entries.has(at)) folders.set(at, { path: at });
  }
  return [...folders.values(), ...entries.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
}
