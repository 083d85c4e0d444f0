import { CulvertError, messageOf } from '../../errors.ts';
import { kernelHasIpv6 } from '../../netns/kernel-ipv6.ts';
import { runCommand } from '../../netns/run.ts';
import { checkTables, replaceTables } from '../nftables/transaction.ts';
import { type IpFamily, type IptablesPrograms, iptablesTables, reconcileIptables } from './iptables.ts';
import { POD_TABLES, podTables } from './nftables.ts';
import { defaultPodRules, type PodRules } from './pod-rules.ts';
import { addReturnRouting, removeReturnRouting } from './return-routing.ts';

/** Puts rules into pods and takes them out, by one of the kernel's two interfaces. */
export interface RulesBackend {
  readonly name: 'nftables' | 'iptables';
  /** The programs of the variant of iptables; null for nftables. */
  readonly programs: Readonly<Record<IpFamily, IptablesPrograms>> | null;
  /**
   * Makes the rules of a pod what they should be, whatever was there. `netns` is a descriptor of its namespace.
   * @throws CulvertError 'RULES_INVALID', 'RULES_FAILED'
   */
  apply(netns: number, rules: PodRules): Promise<void>;
  /** Removes what the other interface has: rules of a node agent that used that. @throws CulvertError 'RULES_FAILED' */
  removeForeign(netns: number): Promise<void>;
  /** Leaves nothing behind; a pod without rules is no error. @throws CulvertError 'RULES_FAILED' */
  remove(netns: number): Promise<void>;
}

/**
 * Chooses by what the machine has: nftables, or else iptables in the variant that can be used. A backend is chosen once
 * and used for every pod.
 * @throws CulvertError 'RULES_UNAVAILABLE' naming what is missing
 */
export async function chooseRulesBackend(
  only?: RulesBackend['name'],
  variants: readonly string[] = IPTABLES_VARIANTS,
): Promise<RulesBackend> {
  const reasons: string[] = [];
  if (only !== 'iptables') {
    const reason = await missingNftables();
    if (reason === null) return nftables;
    reasons.push(reason);
  }
  if (only !== 'nftables') {
    for (const variant of variants) {
      const reason = await unusable([`${variant}-save`]);
      if (reason === null) return iptablesBackend(variant);
      reasons.push(reason);
    }
  }
  throw new CulvertError(
    'RULES_UNAVAILABLE',
    'no way to set capture rules; the kernel needs nf_tables and its modules for NAT, or the programs of iptables and ' +
      `what they need: ${reasons.join('; ')}`,
  );
}

const nftables: RulesBackend = {
  name: 'nftables',
  programs: null,
  apply: (netns, rules) =>
    explained('apply', async () => {
      const effective = supported(rules);
      // Answers must find their way before anything is captured.
      await addReturnRouting(netns, effective.ipv6);
      await replaceTables(netns, POD_TABLES, podTables(effective));
    }),
  removeForeign: (netns) =>
    explained('remove', async () => {
      for (const variant of IPTABLES_VARIANTS) {
        if ((await unusable([`${variant}-save`])) === null) await removeIptables(netns, programsOf(variant));
      }
    }),
  remove: (netns) =>
    explained('remove', async () => {
      await replaceTables(netns, POD_TABLES, []);
      await removeReturnRouting(netns);
    }),
};

function programsOf(variant: string): Record<IpFamily, IptablesPrograms> {
  const ipv6 = variant.replace('iptables', 'ip6tables');
  return {
    ipv4: { restore: `${variant}-restore`, save: `${variant}-save` },
    ipv6: { restore: `${ipv6}-restore`, save: `${ipv6}-save` },
  };
}

async function removeIptables(netns: number, programs: Record<IpFamily, IptablesPrograms>): Promise<void> {
  await reconcileIptables(netns, programs.ipv4, []);
  if (kernelHasIpv6()) await reconcileIptables(netns, programs.ipv6, []);
}

function iptablesBackend(variant: string): RulesBackend {
  const programs = programsOf(variant);
  return {
    name: 'iptables',
    programs,
    apply: (netns, rules) =>
      explained('apply', async () => {
        const effective = supported(rules);
        await addReturnRouting(netns, effective.ipv6);
        await reconcileIptables(netns, programs.ipv4, iptablesTables(effective, 'ipv4'));
        if (effective.ipv6) await reconcileIptables(netns, programs.ipv6, iptablesTables(effective, 'ipv6'));
      }),
    removeForeign: (netns) =>
      explained('remove', async () => {
        if ((await missingNftables()) === null) await replaceTables(netns, POD_TABLES, []);
      }),
    remove: (netns) =>
      explained('remove', async () => {
        await removeIptables(netns, programs);
        await removeReturnRouting(netns);
      }),
  };
}

/** In order of preference: `iptables` alone is whatever the distribution made of it. */
const IPTABLES_VARIANTS = ['iptables-nft', 'iptables', 'iptables-legacy'];

/** What the kernel lacks for the rules of a pod, or null when it has everything. */
async function missingNftables(): Promise<string | null> {
  try {
    await checkTables(podTables(supported({ ...defaultPodRules, dnsCapture: true })));
    return null;
  } catch (error) {
    return messageOf(error);
  }
}

/** Why a program cannot be used, or null when it can. */
async function unusable(argv: readonly string[]): Promise<string | null> {
  try {
    const { status, stderr } = await runCommand(argv);
    return status === 0 ? null : `${argv[0]}: ${stderr.trim()}`;
  } catch (error) {
    return messageOf(error);
  }
}

/** Rules for IPv6 only where there is IPv6. */
function supported(rules: PodRules): PodRules {
  return { ...rules, ipv6: rules.ipv6 && kernelHasIpv6() };
}

async function explained(what: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (cause) {
    if (cause instanceof CulvertError && cause.code === 'RULES_INVALID') throw cause;
    throw new CulvertError('RULES_FAILED', `cannot ${what} the capture rules of a pod: ${messageOf(cause)}`, { cause });
  }
}
