import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { type NetnsHandle, openNetnsHandle } from '../netns/handle.ts';
import { type CommandOptions, type CommandResult, runChecked, runCommand, toolPath } from '../netns/run.ts';
import { createOwnedProcesses, type StartOptions } from './processes.ts';
import { leftoversIn, runTag, scratchRoot } from './run-tag.ts';

/**
 * A node's pod network on one machine: pods are named network namespaces, joined by veth pairs to a bridge in a
 * namespace that stands for the node. Nothing in the namespace of the caller is touched.
 *
 * Everything goes away with `close`, and also when this process dies without calling it.
 */
export interface PodNetwork {
  /** The node's namespace: the bridge, and the node's end of every pod's link. */
  readonly node: NetnsHandle;
  /** A folder for files of this run, with a short name: socket paths may have 107 bytes. */
  readonly folder: string;
  /** Makes a pod. Names are unique within the network, up to 14 of a-z 0-9 and '-'. */
  addPod(name: string): Promise<Pod>;
  /** Makes the namespace of a pod vanish as its runtime would; open handles keep it alive. */
  removePod(pod: Pod): Promise<void>;
  /** Ends every process started in a pod and removes everything. */
  close(): Promise<void>;
}

export interface Pod {
  readonly name: string;
  /** As `ip netns` knows it. */
  readonly netnsName: string;
  readonly netnsPath: string;
  readonly netns: NetnsHandle;
  readonly ipv4: string;
  /** Null on a kernel without IPv6. */
  readonly ipv6: string | null;
  /** The node's end of the pod's link. */
  readonly link: string;
  /** Runs a command inside the pod. */
  run(argv: readonly string[], options?: Omit<CommandOptions, 'netns'>): Promise<CommandResult>;
  /** Starts a process inside the pod that ends with the network. */
  start(argv: readonly string[], options?: Omit<StartOptions, 'netns'>): ChildProcess;
}

/** Takes root, of the machine or of a user namespace. Removes what dead runs have left. */
export async function createPodNetwork(): Promise<PodNetwork> {
  await removeLeftovers();
  const tag = `${runTag}-${++networks}`;
  const folder = mkdtempSync(join(scratchRoot, `${tag}-`));
  const stopReaper = startReaper(tag, folder);
  const withIpv6 = existsSync('/proc/net/if_inet6');
  const processes = createOwnedProcesses();
  const pods = new Set<Pod>();
  const nodeName = `${tag}-node`;
  await addNamespace(nodeName);
  const node = openNetnsHandle(netnsPath(nodeName));
  await ip(nodeName, [
    'link set lo up',
    'link add br0 type bridge mcast_snooping 0',
    `address add ${ipv4Of(BRIDGE_HOST)}/16 dev br0`,
    ...(withIpv6 ? [`address add ${IPV6_PREFIX}1/64 dev br0 nodad`] : []),
    'link set br0 up',
  ]);
  let lastHost = FIRST_HOST - 1;

  return {
    node,
    folder,
    async addPod(name) {
      if (!/^[a-z0-9-]{1,14}$/.test(name)) throw new Error(`not a name for a pod: ${name}`);
      const host = ++lastHost;
      const netnsName = `${tag}-${name}`;
      const link = `v${name}`;
      await addNamespace(netnsName);
      const netns = openNetnsHandle(netnsPath(netnsName));
      await runChecked(['sh', '-c', POD_SYSCTLS], { netns: netns.fd });
      await ip(nodeName, [
        `link add ${link} type veth peer name eth0 netns ${netnsName}`,
        `link set ${link} master br0`,
        `link set ${link} up`,
      ]);
      await ip(netnsName, [
        'link set lo up',
        'link set eth0 up',
        `address add ${ipv4Of(host)}/16 dev eth0`,
        `route add default via ${ipv4Of(BRIDGE_HOST)}`,
        ...(withIpv6
          ? [
              `address add ${IPV6_PREFIX}${host.toString(16)}/64 dev eth0 nodad`,
              `route add default via ${IPV6_PREFIX}1`,
            ]
          : []),
      ]);
      const pod: Pod = {
        name,
        netnsName,
        netnsPath: netnsPath(netnsName),
        netns,
        ipv4: ipv4Of(host),
        ipv6: withIpv6 ? `${IPV6_PREFIX}${host.toString(16)}` : null,
        link,
        run: (argv, options) => runCommand(argv, { ...options, netns: netns.fd }),
        start: (argv, options) => processes.start(argv, { ...options, netns: netns.fd }),
      };
      pods.add(pod);
      return pod;
    },
    async removePod(pod) {
      pods.delete(pod);
      pod.netns.close();
      await runChecked(['ip', 'netns', 'delete', pod.netnsName]);
    },
    async close() {
      await processes.stop();
      const names = [...pods].map(({ netnsName }) => netnsName);
      for (const { netns } of pods) netns.close();
      pods.clear();
      node.close();
      await deleteNamespaces([...names, nodeName]);
      rmSync(folder, { recursive: true, force: true });
      await stopReaper();
    },
  };
}

let networks = 0;

const IPV4_PREFIX = '10.244.';
const IPV6_PREFIX = 'fd00:244::';
const BRIDGE_HOST = 1;
const FIRST_HOST = 10;
const NETNS_FOLDER = '/run/netns';

/**
 * What container runtimes and network plugins set for pods. Each process sees the settings of its own namespace here.
 * Without duplicate address detection an IPv6 address can be used at once.
 */
const POD_SYSCTLS = `
echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start
if [ -d /proc/sys/net/ipv6/conf/default ]; then echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad; fi
`;

function ipv4Of(host: number): string {
  return `${IPV4_PREFIX}${host >> 8}.${host & 255}`;
}

function netnsPath(name: string): string {
  return `${NETNS_FOLDER}/${name}`;
}

async function addNamespace(name: string): Promise<void> {
  await runChecked(['ip', 'netns', 'add', name]);
}

async function deleteNamespaces(names: readonly string[]): Promise<void> {
  // The batch goes on after a failure: a namespace that is gone already is what was wanted.
  const input = names.map((name) => `netns delete ${name}\n`).join('');
  await runCommand(['ip', '-force', '-batch', '-'], { input });
}

/** Runs several `ip` commands inside a namespace. */
async function ip(netnsName: string, commands: readonly string[]): Promise<void> {
  await runChecked(['ip', '-netns', netnsName, '-batch', '-'], { input: `${commands.join('\n')}\n` });
}

async function removeLeftovers(): Promise<void> {
  const names = leftoversIn(NETNS_FOLDER);
  if (names.length > 0) await deleteNamespaces(names);
  for (const name of leftoversIn(scratchRoot)) {
    try {
      rmSync(join(scratchRoot, name), { recursive: true, force: true });
    } catch {
      // Another user's.
    }
  }
}

/**
 * A shell that waits for this process to end, by any means, and then removes what is left of the network. Processes in
 * the pods are gone by then, see OwnedProcesses. Returns a function that ends it and waits until it is gone.
 */
function startReaper(tag: string, folder: string): () => Promise<unknown> {
  const reaper = spawn('sh', ['-c', REAP, 'sh', tag, folder], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
    env: { PATH: toolPath() },
  });
  const stdin = reaper.stdin as import('node:net').Socket;
  stdin.on('error', () => {});
  stdin.unref();
  reaper.unref();
  const gone = new Promise((resolve) => {
    reaper.once('exit', resolve);
    reaper.once('error', resolve);
  });
  return () => {
    stdin.end();
    reaper.ref();
    return gone;
  };
}

const REAP = `
trap '' INT TERM HUP
read -r _
for path in ${NETNS_FOLDER}/"$1"-*; do
  if [ -e "$path" ]; then ip netns delete "\${path##*/}"; fi
done
# An agent that is still being killed may have made one more file meanwhile.
rm -rf -- "$2" || { sleep 1; rm -rf -- "$2"; }
`;
