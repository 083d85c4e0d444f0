import { LEVELS } from '../../log/level-filter.ts';
import type { Setting } from '../setting.ts';
import { fixed, integer, ipAddress, logFilter, nameSegment, oneOf, text, type ValueType } from '../values.ts';

/** As the incumbent's node agent reads its variables: what Go's strconv.ParseBool takes. */
export const goBoolean: ValueType<boolean> = {
  accepts: 'true or false (also 1, t, T, TRUE, True and 0, f, F, FALSE, False)',
  emptyIsUnset: true,
  parse: parseGoBoolean,
  dump: (value) => value,
};

/** Go's strconv.ParseBool; undefined for anything else. Annotations of pods use it as well (spec node-02 §2.1). */
export function parseGoBoolean(given: string): boolean | undefined {
  if (['1', 't', 'T', 'TRUE', 'true', 'True'].includes(given)) return true;
  return ['0', 'f', 'F', 'FALSE', 'false', 'False'].includes(given) ? false : undefined;
}

const absolutePath: ValueType<string> = {
  accepts: 'an absolute path',
  emptyIsUnset: true,
  parse: (given) => (given.startsWith('/') && !given.includes('\0') ? given : undefined),
  dump: (value) => value,
};

/** A file name that stays inside its folder. */
const fileName: ValueType<string> = {
  accepts: 'a file name without "/"',
  emptyIsUnset: true,
  parse: (given) => (/^[\w][\w.-]*$/.test(given) ? given : undefined),
  dump: (value) => value,
};

const names: ValueType<readonly string[]> = {
  accepts: 'names separated by commas',
  emptyIsUnset: false,
  parse(given) {
    const parts = given.split(',').map((part) => part.trim());
    const kept = parts.filter((part) => part !== '');
    return kept.every((part) => /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/.test(part)) ? kept : undefined;
  },
  dump: (value) => value,
};

const DEFAULT_SELECTORS =
  '[{"podSelector":{"matchLabels":{"istio.io/dataplane-mode":"ambient"}}},' +
  '{"podSelector":{"matchExpressions":[{"key":"istio.io/dataplane-mode","operator":"NotIn","values":["none"]}]},' +
  '"namespaceSelector":{"matchLabels":{"istio.io/dataplane-mode":"ambient"}}}]';

/** Settings of `culvert cni`, the node agent (spec node-07 §7.4): the incumbent's names where it has the setting. */
export const nodeAgentSettings = {
  nodeName: {
    env: 'NODE_NAME',
    overriddenBy: 'KUBERNETES_NODE_NAME',
    type: nameSegment,
    default: null,
    otherwise: 'the node agent does not start',
    meaning: 'Name of this node.',
    why: 'Only the pods of this node are watched.',
  },
  podName: {
    env: 'POD_NAME',
    type: nameSegment,
    default: null,
    otherwise: 'empty',
    meaning: 'Name of the node agent’s own pod.',
    why: 'For the log.',
  },
  podNamespace: {
    env: 'POD_NAMESPACE',
    type: nameSegment,
    default: 'culvert-system',
    meaning: 'Namespace of the node agent’s own pod.',
    why: 'Pods of culvert itself must start while no node agent runs; they are known by namespace and name.',
  },
  systemNamespace: {
    env: 'SYSTEM_NAMESPACE',
    type: nameSegment,
    default: 'istio-system',
    meaning: 'Namespace in which pods with the label `app=ztunnel` are never enrolled.',
    why: 'An agent that captured its own traffic would loop.',
  },
  daemonSet: {
    env: 'CULVERT_CNI_DAEMONSET',
    type: nameSegment,
    default: 'culvert-cni',
    meaning: 'Name of the DaemonSet of the node agent.',
    why: 'When it is gone, the node agent was uninstalled; otherwise it is only being replaced.',
  },
  exemptPods: {
    env: 'CULVERT_CNI_EXEMPT_PODS',
    type: names,
    default: 'culvert-cni,culvert-agent',
    meaning: 'DaemonSets in `POD_NAMESPACE` whose pods start without the node agent.',
    why: 'Without them a node could not recover: they are what everybody else waits for.',
  },
  excludeNamespaces: {
    env: 'EXCLUDE_NAMESPACES',
    type: names,
    default: 'kube-system',
    meaning: 'Namespaces whose pods are never enrolled.',
    why: 'What the cluster itself needs must not depend on the mesh.',
  },
  enablementSelector: {
    env: 'AMBIENT_ENABLEMENT_SELECTOR',
    type: text,
    default: DEFAULT_SELECTORS,
    meaning:
      'Which pods are enrolled: a YAML list of `podSelector` and `namespaceSelector`, each a Kubernetes LabelSelector; one entry must match as a whole.',
    why: 'The default is the label `istio.io/dataplane-mode`: `ambient` on the pod or its namespace, unless the pod says `none`.',
  },
  ambientEnabled: {
    env: 'AMBIENT_ENABLED',
    type: fixed('true', true, 'there are no sidecars to set up'),
    default: 'true',
    meaning: 'Enrol pods.',
    why: 'Kept so that the incumbent’s manifests work.',
  },
  dnsCapture: {
    env: 'AMBIENT_DNS_CAPTURE',
    type: goBoolean,
    default: 'false',
    meaning:
      'Capture DNS queries of enrolled pods, unless their annotation `ambient.istio.io/dns-capture` says otherwise.',
    why: 'Only for an agent with a DNS proxy: without one, captured queries get no answer.',
  },
  ipv6: {
    env: 'AMBIENT_IPV6',
    type: goBoolean,
    default: 'true',
    meaning: 'Capture IPv6 as well, where the kernel has it.',
    why: 'Without it IPv6 traffic bypasses the mesh.',
  },
  reconcileRules: {
    env: 'AMBIENT_RECONCILE_POD_RULES_ON_STARTUP',
    type: goBoolean,
    default: 'true',
    meaning: 'Bring the rules of pods that are enrolled already up to date when the node agent starts.',
    why: 'Rules change with versions and settings; each pod changes in one transaction.',
  },
  disableSafeUpgrade: {
    env: 'AMBIENT_DISABLE_SAFE_UPGRADE',
    type: goBoolean,
    default: 'false',
    meaning: 'Uninstall from the node at every end of the node agent, also when it is only replaced.',
    why: 'Then pods start without the mesh while there is no node agent.',
  },
  nativeNftables: {
    env: 'NATIVE_NFTABLES',
    type: goBoolean,
    default: 'true',
    meaning: 'Set rules by nftables where that works; otherwise by iptables.',
    why: 'One transaction per pod, and no lock that other programs may hold.',
  },
  forceIptables: {
    env: 'FORCE_IPTABLES_BINARY',
    type: oneOf(['legacy', 'nft']),
    default: null,
    otherwise: 'the first variant that works: nft, the distribution’s, legacy',
    meaning: 'Variant of iptables, where iptables is used.',
    why: 'For nodes on which the wrong one works as well.',
  },
  probeIpv4: {
    env: 'HOST_PROBE_SNAT_IP',
    type: ipAddress,
    default: '169.254.7.127',
    meaning: 'Source address that the node gives to its probes of enrolled pods.',
    why: 'Probes are let into the pod by this address.',
  },
  probeIpv6: {
    env: 'HOST_PROBE_SNAT_IPV6',
    type: ipAddress,
    default: 'fd16:9254:7127:1337:ffff:ffff:ffff:ffff',
    meaning: 'The same for IPv6.',
    why: 'See `HOST_PROBE_SNAT_IP`.',
  },
  switchToHostNetns: {
    env: 'ALLOW_SWITCH_TO_HOST_NS',
    type: goBoolean,
    default: 'false',
    meaning: 'Set the node’s rules in the network namespace of process 1 instead of the node agent’s own.',
    why: 'For a node agent without `hostNetwork`.',
  },
  hostProc: {
    env: 'CULVERT_HOST_PROC',
    type: absolutePath,
    default: '/host/proc',
    meaning: 'Where the `/proc` of the node is mounted.',
    why: 'Namespaces of running pods are found by their processes.',
  },
  zdsPath: {
    env: 'ZTUNNEL_UDS_ADDRESS',
    type: absolutePath,
    default: '/var/run/ztunnel/ztunnel.sock',
    meaning: 'Socket on which agents are told about pods.',
    why: 'ztunnel connects to the same.',
  },
  runDir: {
    env: 'CNI_AGENT_RUN_DIR',
    type: absolutePath,
    default: '/var/run/culvert',
    meaning: 'Folder of the socket on which the CNI plugin calls; the same inside and outside the container.',
    why: 'The plugin runs on the node, outside of the container.',
  },
  stateDir: {
    env: 'CULVERT_CNI_STATE_DIR',
    type: absolutePath,
    default: '/var/lib/culvert',
    meaning:
      'Folder of the file that tells the plugin which namespaces are enrolled; the same inside and outside the container.',
    why: 'It must survive a reboot: it decides whether a pod may start while there is no node agent.',
  },
  installPlugin: {
    env: 'CULVERT_CNI_INSTALL',
    type: goBoolean,
    default: 'true',
    meaning: 'Install the CNI plugin on the node and keep it installed.',
    why: 'Without it pods are enrolled only after they have started.',
  },
  cniBinDir: {
    env: 'CULVERT_CNI_BIN_DIR',
    type: absolutePath,
    default: '/host/opt/cni/bin',
    meaning: 'Where the node’s folder of CNI plugins is mounted.',
    why: 'The plugin is copied there.',
  },
  cniConfDir: {
    env: 'MOUNTED_CNI_NET_DIR',
    type: absolutePath,
    default: '/host/etc/cni/net.d',
    meaning: 'Where the node’s folder of CNI configuration is mounted.',
    why: 'The plugin is chained into the first configuration there.',
  },
  cniConfName: {
    env: 'CNI_CONF_NAME',
    type: fileName,
    default: null,
    otherwise: 'the first valid one by name',
    meaning: 'File of the configuration that the plugin is chained into; with or without `list` at its end.',
    why: 'For nodes with several.',
  },
  chained: {
    env: 'CHAINED_CNI_PLUGIN',
    type: goBoolean,
    default: 'true',
    meaning:
      'Chain the plugin into another’s configuration; otherwise it gets a file of its own, for a meta plugin such as Multus.',
    why: 'Runtimes use only the first configuration.',
  },
  cniConfGroupRead: {
    env: 'CNI_CONF_GROUP_READ',
    type: goBoolean,
    default: 'false',
    meaning: 'Let the group read a configuration file that is made anew (0640 instead of 0600).',
    why: 'Some runtimes do not run as root.',
  },
  monitoringPort: {
    env: 'MONITORING_PORT',
    type: integer(0, 65535),
    default: '15014',
    meaning: 'Port of `/metrics`; 0 takes any free port.',
    why: 'The incumbent’s port.',
  },
  healthPort: {
    env: 'CULVERT_CNI_HEALTH_PORT',
    type: integer(0, 65535),
    default: '8000',
    meaning: 'Port of `/readyz` and `/healthz`; 0 takes any free port.',
    why: 'The incumbent’s port.',
  },
  kubernetesHost: {
    env: 'KUBERNETES_SERVICE_HOST',
    type: text,
    default: null,
    otherwise: 'the node agent does not start',
    meaning: 'Host of the API server. Set by Kubernetes in every pod.',
    why: 'Pods and namespaces are read from there.',
  },
  kubernetesPort: {
    env: 'KUBERNETES_SERVICE_PORT',
    type: integer(1, 65535),
    default: '443',
    meaning: 'Port of the API server. Set by Kubernetes in every pod.',
    why: 'See `KUBERNETES_SERVICE_HOST`.',
  },
  serviceAccountDir: {
    env: 'CULVERT_SERVICE_ACCOUNT_DIR',
    type: absolutePath,
    default: '/var/run/secrets/kubernetes.io/serviceaccount',
    meaning: 'Folder with the `token` for the API server and its `ca.crt`; the token is read for every request.',
    why: 'Where Kubernetes mounts them.',
  },
  logFilter: {
    env: 'RUST_LOG',
    overriddenBy: 'LOG_LEVEL',
    type: logFilter,
    default: 'info',
    meaning: `What is logged: a level (${LEVELS.join(', ')}), and levels of single targets.`,
    why: 'The incumbent’s variable, and the one of the agent.',
  },
  logFormat: {
    env: 'LOG_FORMAT',
    type: oneOf(['plain', 'json']),
    default: 'plain',
    meaning: 'Form of a log line.',
    why: 'Tools parse either.',
  },
} as const satisfies Record<string, Setting>;
