/** Kubernetes objects of a mesh of any size, as an API server sends them. */
import type { Kind, ObjectChange } from '../../src/control/kinds.ts';
import { NODES } from '../../src/control/objects/node.ts';
import { PODS } from '../../src/control/objects/pod.ts';
import { SERVICES } from '../../src/control/objects/service.ts';

const NODE_COUNT = 500;
const NAMESPACES = 100;

export interface MeshSize {
  readonly pods: number;
  readonly services: number;
}

/** All of them as new ones, each read from its JSON. */
export function* newObjects({ pods, services }: MeshSize): Generator<ObjectChange> {
  for (let index = 0; index < NODE_COUNT; index++) yield created(NODES, nodeName(index), node(index));
  for (let index = 0; index < services; index++) {
    yield created(SERVICES, `${namespaceOf(index)}/${serviceName(index)}`, service(index));
  }
  for (let index = 0; index < pods; index++) yield created(PODS, podKey(index, services), pod(index, services, true));
}

/** The pod becomes ready, or ceases to be. */
export function podChange(index: number, services: number, isReady: boolean): ObjectChange {
  return {
    kind: PODS,
    key: podKey(index, services),
    before: PODS.read(pod(index, services, !isReady)),
    after: PODS.read(pod(index, services, isReady)),
  };
}

function created(kind: Kind, key: string, object: object): ObjectChange {
  return { kind, key, before: null, after: kind.read(JSON.parse(JSON.stringify(object))) };
}

function node(index: number): object {
  return {
    metadata: {
      name: nodeName(index),
      labels: {
        'topology.kubernetes.io/region': 'eu-central-1',
        'topology.kubernetes.io/zone': `eu-central-1${'abc'[index % 3]}`,
      },
    },
  };
}

function service(index: number): object {
  return {
    metadata: {
      name: serviceName(index),
      namespace: namespaceOf(index),
      uid: `service-${index}`,
      creationTimestamp: '2026-01-01T00:00:00Z',
      labels: { app: serviceName(index) },
    },
    spec: {
      type: 'ClusterIP',
      clusterIPs: [`172.20.${index >> 8}.${index & 255}`],
      ipFamilies: ['IPv4'],
      selector: { app: serviceName(index) },
      ports: [
        { name: 'http', port: 80, protocol: 'TCP', targetPort: 8080 },
        { name: 'metrics', port: 9090, protocol: 'TCP', targetPort: 'metrics' },
      ],
    },
  };
}

function pod(index: number, services: number, isReady: boolean): object {
  const app = serviceName(index % services);
  return {
    metadata: {
      name: podName(index, services),
      generateName: `${app}-7d9c5b6f4-`,
      namespace: namespaceOf(index % services),
      uid: `pod-${index}`,
      generation: 1,
      labels: { app, 'pod-template-hash': '7d9c5b6f4', version: 'v1' },
      annotations: { 'ambient.istio.io/redirection': 'enabled' },
      ownerReferences: [{ kind: 'ReplicaSet', name: `${app}-7d9c5b6f4`, controller: true }],
    },
    spec: {
      nodeName: nodeName(index % NODE_COUNT),
      serviceAccountName: app,
      containers: [
        {
          name: 'main',
          image: 'registry.example/app:1',
          ports: [
            { name: 'http', containerPort: 8080, protocol: 'TCP' },
            { name: 'metrics', containerPort: 9090, protocol: 'TCP' },
          ],
        },
      ],
    },
    status: {
      phase: 'Running',
      podIPs: [{ ip: `10.${index >> 16}.${(index >> 8) & 255}.${index & 255}` }],
      conditions: [{ type: 'Ready', status: isReady ? 'True' : 'False' }],
    },
  };
}

function podKey(index: number, services: number): string {
  return `${namespaceOf(index % services)}/${podName(index, services)}`;
}

function podName(index: number, services: number): string {
  return `${serviceName(index % services)}-7d9c5b6f4-${index.toString(36).padStart(5, '0')}`;
}

function serviceName(index: number): string {
  return `app-${index}`;
}

function namespaceOf(index: number): string {
  return `team-${index % NAMESPACES}`;
}

function nodeName(index: number): string {
  return `ip-10-0-${index >> 8}-${index & 255}.eu-central-1.compute.internal`;
}
