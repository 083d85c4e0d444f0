import { canonicalIp } from '../../netns/address.ts';
import type { Kind } from '../kinds.ts';
import { Field } from './field.ts';
import { annotation, type Labels, type Metadata, readMetadata } from './metadata.ts';
import { sharedData, sharedText } from './shared.ts';

export interface Pod extends Metadata {
  readonly uid: string;
  readonly phase: string;
  /** Failed or Succeeded. */
  readonly isTerminal: boolean;
  /** Ready, and not being deleted. */
  readonly isHealthy: boolean;
  readonly hostNetwork: boolean;
  /** Canonical. Empty while there is none, or when one of them cannot be read. */
  readonly ips: readonly string[];
  readonly node: string;
  readonly serviceAccount: string;
  /** Of what the pod belongs to (control-01 §2.1). */
  readonly workloadName: string;
  /** Whether the node agent has redirected the pod's traffic. */
  readonly isRedirected: boolean;
  /** TCP ports of its containers by name. */
  readonly ports: Readonly<Record<string, number>>;
}

export const PODS: Kind<Pod> = {
  kind: 'Pod',
  group: '',
  version: 'v1',
  plural: 'pods',
  namespaced: true,
  optional: false,
  // A pod that failed becomes one that was deleted; one that succeeded may still be asked about (control-02 §4).
  fieldSelector: 'status.phase!=Failed',
  read: readPod,
};

function readPod(object: unknown): Pod {
  const pod = Field.of(object);
  const metadata = readMetadata(pod);
  const [spec, status] = [pod.at('spec'), pod.at('status')];
  const phase = status.at('phase').text();
  const isReady = status
    .at('conditions')
    .list()
    .some((condition) => condition.at('type').text() === 'Ready' && condition.at('status').text() === 'True');
  // Field by field: what is spread is kept in two pieces, for each of 200 000.
  const { namespace, name, labels, created, generation } = metadata;
  return {
    namespace,
    name,
    labels,
    created,
    generation,
    uid: pod.at('metadata').at('uid').text(),
    phase: sharedText(phase),
    isTerminal: phase === 'Failed' || phase === 'Succeeded',
    isHealthy: isReady && !pod.at('metadata').at('deletionTimestamp').isPresent,
    hostNetwork: spec.at('hostNetwork').flag(),
    ips: readIps(status),
    node: sharedText(spec.at('nodeName').text()),
    serviceAccount: sharedText(spec.at('serviceAccountName').text()),
    workloadName: sharedText(workloadNameOf(pod, metadata)),
    isRedirected: annotation(pod, 'ambient.istio.io/redirection') === 'enabled',
    ports: readPorts(spec),
  };
}

function readIps(status: Field): string[] {
  const listed = status.at('podIPs').list();
  const given = listed.length > 0 ? listed.map((each) => each.at('ip').text()) : [status.at('podIP').text()];
  const ips = given.flatMap((ip) => canonicalIp(ip) ?? []);
  return ips.length === given.length ? ips : [];
}

/** Sidecars are init containers that are always restarted; a container's port comes before one of theirs. */
function readPorts(spec: Field): Readonly<Record<string, number>> {
  const sidecars = spec
    .at('initContainers')
    .list()
    .filter((container) => container.at('restartPolicy').text() === 'Always');
  const ports = new Map<string, number>();
  for (const container of [...spec.at('containers').list(), ...sidecars]) {
    for (const port of container.at('ports').list()) {
      const name = port.at('name').text();
      const number = port.at('containerPort').port();
      if (name === '' || number === null || port.at('protocol').text() !== 'TCP' || ports.has(name)) continue;
      ports.set(name, number);
    }
  }
  return sharedData(Object.fromEntries(ports));
}

function workloadNameOf(pod: Field, { name, labels }: Metadata): string {
  const given = labels['service.istio.io/workload-name'];
  if (given !== undefined && given !== '') return given;
  const metadata = pod.at('metadata');
  if (metadata.at('generateName').text() === '') return name;
  const owner = metadata
    .at('ownerReferences')
    .list()
    .find((each) => each.at('controller').flag());
  return owner === undefined ? name : withoutRevision(owner.at('kind').text(), owner.at('name').text(), labels);
}

/** The name of what a person made: the Deployment of a ReplicaSet, the CronJob of a Job. */
function withoutRevision(kind: string, owner: string, labels: Labels): string {
  switch (kind) {
    case 'ReplicaSet': {
      const hash = [labels['pod-template-hash'], labels['rollouts-pod-template-hash']].find(
        (each) => each !== undefined && each !== '' && owner.endsWith(`-${each}`),
      );
      return hash === undefined ? owner : owner.slice(0, -hash.length - 1);
    }
    case 'ReplicationController':
      return labels.deploymentconfig || owner;
    case 'Job':
      return /^(.+)-\d{8,10}$/.exec(owner)?.[1] ?? owner;
    default:
      return owner;
  }
}
