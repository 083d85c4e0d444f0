import { CulvertError, messageOf } from '../../errors.ts';
import { isIpv4 } from '../../netns/address.ts';
import { kernelHasIpv6 } from '../../netns/kernel-ipv6.ts';
import { runChecked } from '../../netns/run.ts';
import { addressIn, COUNTER, type IpFamily, protocol, socketUser, sourceNat } from '../nftables/expressions.ts';
import { type AddressSet, addToSets, replaceTables, type Table } from '../nftables/transaction.ts';
import type { RulesBackend } from '../rules/backend.ts';

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
  /** What is on the node; null when that is not known. */
  let written: ReadonlyMap<string, string> | null = null;
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
        flushing = explained(async () => {
          const wanted = new Map(owners);
          const before = written;
          written = null;
          await write(options, wanted, before);
          written = wanted;
        });
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
    sync() {
      written = null;
      return flush();
    },
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
const SET = { ip: 'istio-inpod-probes-v4', ip6: 'istio-inpod-probes-v6' };
const CHAIN = 'ISTIO_POSTRT';

/** Addresses that are to be, or are, in the rules, each with the pod that has it. */
type Owners = ReadonlyMap<string, string>;

/** The node's tables; none when there is nothing to exempt. @throws CulvertError 'RULES_INVALID' for an address that is none */
function hostTables(options: HostRulesOptions, owners: Owners): Table[] {
  if (owners.size === 0) return [];
  const probe = { ip: options.probeIpv4, ip6: options.probeIpv6 };
  const rules = familiesOf(options).map((family) => [
    ...protocol('tcp'),
    ...socketUser(options.kubeletUid),
    ...addressIn(family, 'daddr', SET[family]),
    ...COUNTER,
    ...sourceNat(family, probe[family]),
  ]);
  const hook = { type: 'nat', at: 'postrouting', priority: 100 } as const;
  return [{ name: TABLE, sets: setsOf(options, owners), chains: [{ name: 'postrouting', hook, rules }] }];
}

/** One set for each family. */
function setsOf(options: HostRulesOptions, owners: Owners): AddressSet[] {
  const isOf = { ip: isIpv4, ip6: (ip: string) => !isIpv4(ip) };
  return familiesOf(options).map((family) => ({
    name: SET[family],
    family,
    elements: [...owners].flatMap(([ip, uid]) => (isOf[family](ip) ? [{ ip, comment: uid }] : [])),
  }));
}

function familiesOf({ ipv6 }: HostRulesOptions): IpFamily[] {
  return ipv6 ? ['ip', 'ip6'] : ['ip'];
}

/**
 * Addresses that are new are added to the sets: pods that start wait for it, and to replace a table takes the kernel
 * longer. For any other change, and when that fails, all is written anew.
 */
async function writeNft(options: HostRulesOptions, owners: Owners, written: Owners | null): Promise<void> {
  if (written !== null && written.size > 0 && [...written].every(([ip, uid]) => owners.get(ip) === uid)) {
    const added = new Map([...owners].filter(([ip]) => !written.has(ip)));
    if (added.size === 0) return;
    try {
      return await addToSets(options.netns, TABLE, setsOf(options, added));
    } catch {
      // Somebody has removed the table.
    }
  }
  await replaceTables(options.netns, [TABLE], hostTables(options, owners));
}

/** One rule per address instead of an ipset: only the first packet of a connection passes the nat table. */
function hostIptablesScript(saved: string, family: 'ipv4' | 'ipv6', options: HostRulesOptions, owners: Owners): string {
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

async function writeIptables(options: HostRulesOptions, owners: Owners): Promise<void> {
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
