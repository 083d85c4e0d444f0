/** Kubernetes objects as an API server has them, of which a test says only what it is about. */
import type { Manifest } from './mesh-under-test.ts';

type Json = Record<string, unknown>;

/** A running, ready pod `demo/name` at 10.0.0.1. `more` is laid over it, mapping by mapping. */
export function pod(name: string, more: Json = {}): Manifest {
  return merged(
    {
      kind: 'Pod',
      metadata: { name, namespace: 'demo', uid: `uid-${name}`, labels: { app: name } },
      spec: { nodeName: 'node1', serviceAccountName: 'default' },
      status: { phase: 'Running', podIPs: [{ ip: '10.0.0.1' }], conditions: [{ type: 'Ready', status: 'True' }] },
    },
    more,
  );
}

/** A Service `demo/name` at 10.1.0.1 that selects `app: name`, port 80 to 8080. */
export function service(name: string, more: Json = {}): Manifest {
  return merged(
    {
      kind: 'Service',
      metadata: { name, namespace: 'demo', creationTimestamp: '2026-01-01T00:00:00Z' },
      spec: {
        clusterIPs: ['10.1.0.1'],
        selector: { app: name },
        ports: [{ name: 'http', port: 80, protocol: 'TCP', targetPort: 8080 }],
      },
    },
    more,
  );
}

/** Host `name.example.com`, port 80, STATIC. */
export function serviceEntry(name: string, more: Json = {}): Manifest {
  return merged(
    {
      kind: 'ServiceEntry',
      metadata: { name, namespace: 'demo', creationTimestamp: '2026-01-01T00:00:00Z' },
      spec: {
        hosts: [`${name}.example.com`],
        ports: [{ number: 80, name: 'http', protocol: 'HTTP' }],
        resolution: 'STATIC',
      },
    },
    more,
  );
}

export function workloadEntry(name: string, more: Json = {}): Manifest {
  return merged(
    {
      kind: 'WorkloadEntry',
      metadata: { name, namespace: 'demo', labels: { app: name } },
      spec: { address: '10.2.0.1' },
    },
    more,
  );
}

export function namespace(name: string, labels: Json = {}, annotations: Json = {}): Manifest {
  return { kind: 'Namespace', metadata: { name, labels, annotations } } as Manifest;
}

/** A waypoint of its namespace at 10.3.0.1, for services. */
export function waypoint(name: string, more: Json = {}): Manifest {
  return merged(
    {
      kind: 'Gateway',
      metadata: { name, namespace: 'demo' },
      spec: { gatewayClassName: 'istio-waypoint', listeners: [{ name: 'mesh', port: 15008, protocol: 'HBONE' }] },
      status: { addresses: [{ type: 'IPAddress', value: '10.3.0.1' }] },
    },
    more,
  );
}

export function authorizationPolicy(name: string, spec: Json, metadata: Json = {}): Manifest {
  return merged(
    { kind: 'AuthorizationPolicy', metadata: { name, namespace: 'demo', generation: 3 }, spec },
    { metadata },
  );
}

export function peerAuthentication(name: string, spec: Json, metadata: Json = {}): Manifest {
  return merged({ kind: 'PeerAuthentication', metadata: { name, namespace: 'demo' }, spec }, { metadata });
}

/** Mappings are merged, everything else is replaced; undefined takes away. */
export function merged(base: Json, more: Json): Manifest {
  const result = { ...base };
  for (const [name, value] of Object.entries(more)) {
    const before = result[name];
    result[name] = isMapping(before) && isMapping(value) ? merged(before, value) : value;
  }
  return result as Manifest;
}

function isMapping(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export const uidOf = (name: string) => `Kubernetes//Pod/demo/${name}`;
export const keyOfService = (name: string) => `demo/${name}.demo.svc.cluster.local`;
