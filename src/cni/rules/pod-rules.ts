import { CulvertError } from '../../errors.ts';

/**
 * What the rules of a pod are to capture (spec node-04): connections that leave it go to the agent's listeners, as do
 * connections that arrive; what carries the agent's mark passes.
 */
export interface PodRules {
  /** DNS queries go to port 15053. */
  readonly dnsCapture: boolean;
  /** Without it, a pod's IPv6 traffic is not part of the mesh. */
  readonly ipv6: boolean;
  /** Arriving connections are left alone: the pod is an ingress that the mesh does not see. */
  readonly ingress: boolean;
  /** Interfaces of the pod through which guests send (KubeVirt); their TCP counts as leaving the pod. */
  readonly virtualInterfaces: readonly string[];
  /** Source addresses that the node gives to its probes of the pod. */
  readonly probeIpv4: string;
  readonly probeIpv6: string;
}

/** Everything captured but DNS. */
export const defaultPodRules: PodRules = {
  dnsCapture: false,
  ipv6: true,
  ingress: false,
  virtualInterfaces: [],
  probeIpv4: '169.254.7.127',
  probeIpv6: 'fd16:9254:7127:1337:ffff:ffff:ffff:ffff',
};

/** Mark of every packet that the agent sends in a pod. */
export const AGENT_MARK = 0x539;
/** Mark of connections from the agent to the application, whose answers have to come back to the agent. */
export const RETURN_MARK = 0x111;
/** The bits of a mark that count. */
export const MARK_MASK = 0xfff;
/** Routing table that delivers marked answers locally, and the priority of the rule that leads to it. */
export const RETURN_TABLE = 100;
export const RETURN_RULE_PRIORITY = 32764;
export const DNS_PORT = 15053;

/**
 * Rules are text that other programs read, and interface names come from annotations of pods: anything but a plain name
 * is refused.
 * @throws CulvertError 'RULES_INVALID'
 */
export function checkedPodRules(rules: PodRules): PodRules {
  for (const name of rules.virtualInterfaces) {
    if (!/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}$/.test(name)) {
      throw new CulvertError('RULES_INVALID', `not the name of a network interface: ${JSON.stringify(name)}`);
    }
  }
  return rules;
}
