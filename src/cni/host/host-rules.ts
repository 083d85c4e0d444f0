import { CulvertError, messageOf } from '../../errors.ts';
import { isIpv4 } from '../../netns/address.ts';
import { runChecked } from '../../netns/run.ts';
import type { RulesBackend } from '../rules/backend.ts';
import { kernelHasIpv6 } from '../rules/return-routing.ts';

/**
 * Rules on the node that give its probes of enrolled pods a source address by which the pods' rules let them in (spec
 * node-05). What should be there is kept here and written as a whole, in one transaction, whenever it changes; so it
 * cannot drift, and an address that has moved to another pod is that pod's.
 */
export interface HostRules {
  /** Notes what an earlier node agent has set, so that the next write, whatever it is for, keeps it. */
  seed(uid: string, ips: readonly string[]): void;
  /** Writes what is kept here, so that nothing else of ours is left on the node. @throws CulvertError 'HOST_RULES_FAILED' */
  sync(): Promise<void>;
  /** Resolves when the addresses of a pod, and no others of it, are in the rules. @throws CulvertError 'HOST_RULES_FAILED' */
  set(uid: string, ips: readonly string[]): Promise<void>;
  /** Takes out what is still that pod's. @throws CulvertError 'HOST_RULES_FAILED' */
  remove(uid: string): Promise<void>;
  /** Removes everything from the node. */
  close(): Promise<void>;
}

export interface HostRulesOptions {
  readonly backend: RulesBackend;
  /** Descriptor of the node's namespace; null when it is the process's own. */
  readonly netns: number | null;
  readonly probeIpv4: string;
  readonly probeIpv6: string;
  readonly ipv6: boolean;
  /** Whose sockets are probes: the user that the kubelet runs as. */
  readonly kubeletUid: number;
}

export function createHostRules(options: HostRulesOptions): HostRules {
  const owners = new Map<string, string>();
  const write = options.backend.name === 'nftables' ? writeNft : writeIptables;
  let flushing: Promise<void> = Promise.resolve();
  let next: Promise<void> | null = null;
  /** What is kept here is not known to be on the node. */
  let dirty = false;

  /** Changes that come while one is being written are written together afterwards. */
  function flush(): Promise<void> {
    next ??= flushing
      .catch(() => {})
      .then(() => {
        next = null;
        dirty = false;
        flushing = explained(() => write(options, owners));
        return flushing;
      })
      .catch((error) => {
        dirty = true;
        throw error;
      });
    return next;
  }

  return {
    seed(uid, ips) {
      for (const ip of wantedOf(ips)) owners.set(ip, uid);
      dirty = true;
    },
    sync: flush,
    async set(uid, ips) {
      const before = ipsOf(uid);
      const wanted = wantedOf(ips);
      if (before.length !== wanted.length || !before.every((ip) => wanted.includes(ip))) {
        for (const ip of before) owners.delete(ip);
        for (const ip of wanted) owners.set(ip, uid);
        dirty = true;
      }
      if (dirty) await flush();
      // The write that has it may be under way.
      else await flushing;
    },
    async remove(uid) {
      const before = ipsOf(uid);
      if (before.length === 0) return;
      for (const ip of before) owners.delete(ip);
      await flush();
    },
    async close() {
      owners.clear();
      await flush();
    },
  };

  function wantedOf(ips: readonly string[]): readonly string[] {
    return options.ipv6 ? ips : ips.filter(isIpv4);
  }

  function ipsOf(uid: string): string[] {
    return [...owners].flatMap(([ip, owner]) => (owner === uid ? [ip] : []));
  }
}

const TABLE = 'istio-ambient-nat';
const SET = { ipv4: 'istio-inpod-probes-v4', ipv6: 'istio-inpod-probes-v6' };
const CHAIN = 'ISTIO_POSTRT';

/** The node's table; '' for the removal when there is nothing to exempt. */
export function hostNftScript(options: HostRulesOptions, owners: ReadonlyMap<string, string>): string {
  const { probeIpv4, probeIpv6, ipv6, kubeletUid } = options;
  const removal = `add table inet ${TABLE}\ndelete table inet ${TABLE}\n`;
  if (owners.size === 0) return removal;
  const set = (name: string, type: string, mine: (ip: string) => boolean) => {
    const elements = [...owners].filter(([ip]) => mine(ip)).map(([ip, uid]) => `${ip} comment "${uid}"`);
    const list = elements.length === 0 ? '' : `    elements = { ${elements.join(', ')} }\n`;
    return `  set ${name} {\n    type ${type}\n${list}  }\n`;
  };
  const rule = (ip: string, name: string, probe: string) =>
    `    meta l4proto tcp meta skuid ${kubeletUid} ${ip} daddr @${name} counter snat ${ip} to ${probe}\n`;
  return (
    `${removal}table inet ${TABLE} {\n` +
    set(SET.ipv4, 'ipv4_addr', isIpv4) +
    (ipv6 ? set(SET.ipv6, 'ipv6_addr', (ip) => !isIpv4(ip)) : '') +
    '  chain postrouting {\n    type nat hook postrouting priority 100; policy accept;\n' +
    rule('ip', SET.ipv4, probeIpv4) +
    (ipv6 ? rule('ip6', SET.ipv6, probeIpv6) : '') +
    '  }\n}\n'
  );
}

async function writeNft(options: HostRulesOptions, owners: ReadonlyMap<string, string>): Promise<void> {
  await runChecked(['nft', '-f', '-'], { netns: options.netns, input: hostNftScript(options, owners) });
}

/** One rule per address instead of an ipset: only the first packet of a connection passes the nat table. */
export function hostIptablesScript(
  saved: string,
  family: 'ipv4' | 'ipv6',
  options: HostRulesOptions,
  owners: ReadonlyMap<string, string>,
): string {
  const mine = [...owners].filter(([ip]) => isIpv4(ip) === (family === 'ipv4'));
  const there = saved.split('\n').filter((line) => line.startsWith('-A ') && line.endsWith(` -j ${CHAIN}`));
  const chain = saved.includes(`:${CHAIN} `);
  if (mine.length === 0 && !chain && there.length === 0) return '';
  const probe = family === 'ipv4' ? options.probeIpv4 : options.probeIpv6;
  const lines = [
    '*nat',
    // Declaring a chain makes it, or empties it when it is there.
    `:${CHAIN} - [0:0]`,
    ...there.map((line) => line.replace(/^-A/, '-D')),
    ...(mine.length === 0
      ? [`-X ${CHAIN}`]
      : [
          `-I POSTROUTING 1 -j ${CHAIN}`,
          ...mine.map(
            ([ip, uid]) =>
              `-A ${CHAIN} -d ${ip} -p tcp -m owner --uid-owner ${options.kubeletUid} ` +
              `-m comment --comment "${uid}" -j SNAT --to-source ${probe}`,
          ),
        ]),
    'COMMIT',
  ];
  return `${lines.join('\n')}\n`;
}

async function writeIptables(options: HostRulesOptions, owners: ReadonlyMap<string, string>): Promise<void> {
  const { netns, backend, ipv6 } = options;
  const programs = backend.programs;
  if (programs === null) throw new CulvertError('HOST_RULES_FAILED', `the backend ${backend.name} has no iptables`);
  for (const family of ipv6 && kernelHasIpv6() ? (['ipv4', 'ipv6'] as const) : (['ipv4'] as const)) {
    const saved = await runChecked([programs[family].save, '-t', 'nat'], { netns });
    const script = hostIptablesScript(saved, family, options, owners);
    if (script === '') continue;
    await runChecked([programs[family].restore, '--noflush', '--wait=30'], { netns, input: script });
  }
}

async function explained(work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (cause) {
    throw new CulvertError('HOST_RULES_FAILED', `cannot set the node's rules for probes: ${messageOf(cause)}`, {
      cause,
    });
  }
}
