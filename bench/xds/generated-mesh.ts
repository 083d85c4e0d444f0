/** A mesh of any size, as istiod sends it. */
import { createHash } from 'node:crypto';
import { ADDRESS } from '../../test/support/istiod.ts';
import { encode, type Json } from '../../test/support/xds-schema.ts';

const NODES = 1000;
const NAMESPACES = 200;
const PODS_PER_SERVICE = 20;
/** A prime that divides no size of a mesh. */
const STRIDE = 104_729;

/** One response with so many workloads and their services. */
export function snapshot(workloads: number): Buffer {
  const parts: Buffer[] = [];
  for (let count = 0; count < workloads; count++) {
    // istiod sends what it holds in no order.
    const index = (count * STRIDE) % workloads;
    parts.push(resource(uid(index), workload(index)));
  }
  for (let index = 0; index < workloads / PODS_PER_SERVICE; index++)
    parts.push(resource(serviceKey(index), service(index)));
  return Buffer.concat([...parts, encode('DeltaDiscoveryResponse', { typeUrl: ADDRESS, nonce: 'snapshot' })]);
}

/** A response with workloads that changed; no two changes of one are alike. */
export function changed(indexes: readonly number[], round: number): Buffer {
  return Buffer.concat([
    ...indexes.map((index) => resource(uid(index), workload(index, { canonicalRevision: `v${round}` }))),
    encode('DeltaDiscoveryResponse', { typeUrl: ADDRESS, nonce: `changes-${round}` }),
  ]);
}

/** So many policies by name, as one for each of the first services is in force in its namespace. */
export function policies(count: number): Record<string, Json> {
  return Object.fromEntries(
    Array.from({ length: count }, (_, index) => {
      const namespace = namespaceOf(index);
      const name = `allow-app-${index}`;
      const principals = [0, 1, 2].map((peer) => ({
        exact: `cluster.local/ns/${namespaceOf(index + peer)}/sa/app-${(index + peer) % 50}`,
      }));
      const rules = [{ clauses: [{ matches: [{ principals, destinationPorts: [8080, 9090] }] }] }];
      return [`${namespace}/${name}`, { name, namespace, scope: 'NAMESPACE', action: 'ALLOW', rules }];
    }),
  );
}

/** A response is a sequence of its fields, so one of one resource can be a part of it. */
function resource(name: string, address: Json): Buffer {
  const value = encode('Address', address);
  const version = createHash('sha1').update(value).digest('hex').slice(0, 16);
  return encode('DeltaDiscoveryResponse', { resources: [{ name, version, resource: { typeUrl: ADDRESS, value } }] });
}

function workload(index: number, more: Json = {}): Json {
  const service = Math.floor(index / PODS_PER_SERVICE);
  const namespace = namespaceOf(service);
  return {
    workload: {
      uid: uid(index),
      name: podName(index),
      namespace,
      addresses: [Buffer.of(10, (index >> 16) & 255, (index >> 8) & 255, index & 255)],
      tunnelProtocol: 'HBONE',
      serviceAccount: `app-${service % 50}`,
      node: `ip-10-0-${(index % NODES) >> 8}-${index % 256}.eu-central-1.compute.internal`,
      canonicalName: `app-${service}`,
      canonicalRevision: 'latest',
      workloadType: 'POD',
      workloadName: `app-${service}`,
      clusterId: 'Kubernetes',
      locality: { region: 'eu-central-1', zone: `eu-central-1${'abc'[index % 3]}` },
      services: {
        [serviceKey(service)]: {
          ports: [
            { servicePort: 80, targetPort: 8080 },
            { servicePort: 9090, targetPort: 9090 },
          ],
        },
      },
      ...more,
    },
  };
}

function service(index: number): Json {
  return {
    service: {
      name: `app-${index}`,
      namespace: namespaceOf(index),
      hostname: `app-${index}.${namespaceOf(index)}.svc.cluster.local`,
      addresses: [{ network: '', address: Buffer.of(172, 20 + (index >> 16), (index >> 8) & 255, index & 255) }],
      ports: [
        { servicePort: 80, targetPort: 8080 },
        { servicePort: 9090, targetPort: 9090 },
      ],
      ipFamilies: 1,
      canonical: true,
    },
  };
}

function namespaceOf(service: number): string {
  return `team-${service % NAMESPACES}`;
}

function serviceKey(index: number): string {
  return `${namespaceOf(index)}/app-${index}.${namespaceOf(index)}.svc.cluster.local`;
}

function podName(index: number): string {
  const hash = createHash('sha1').update(String(index)).digest('hex');
  return `app-${Math.floor(index / PODS_PER_SERVICE)}-${hash.slice(0, 10)}-${hash.slice(10, 15)}`;
}

function uid(index: number): string {
  return `Kubernetes//Pod/${namespaceOf(Math.floor(index / PODS_PER_SERVICE))}/${podName(index)}`;
}
