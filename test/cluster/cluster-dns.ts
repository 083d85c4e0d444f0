/** The DNS server that this cluster lacks: answers for its Services at 10.96.0.10, from this process. */
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import type { Cluster } from './cluster.ts';

interface Services {
  readonly items: readonly {
    readonly metadata: { readonly name: string; readonly namespace: string };
    readonly spec: { readonly clusterIP?: string };
  }[];
}

/** Where nodes and pods reach this process. */
const HOST = '10.89.0.1';
const CLUSTER_DNS = '10.96.0.10';

export async function serveClusterDns(cluster: Cluster): Promise<Socket> {
  const known = new Map<string, string>();
  const refresh = async () => {
    const { items } = (await cluster.json('get', 'services', '-A')) as unknown as Services;
    for (const { metadata, spec } of items) {
      const name = `${metadata.name}.${metadata.namespace}.svc.cluster.local`;
      if (spec.clusterIP !== undefined && spec.clusterIP !== 'None') known.set(name, spec.clusterIP);
    }
  };
  const socket = createSocket('udp4');
  socket.on('message', (query, { address, port }) => {
    const reply = answer(query, known);
    if (reply !== null) socket.send(reply, port, address);
    // A Service that was made meanwhile is known when it is asked for again.
    else void refresh().catch(() => {});
  });
  socket.bind(0, HOST);
  await once(socket, 'listening');
  await refresh();
  const { port } = socket.address() as AddressInfo;
  const ports = [{ name: 'dns', protocol: 'UDP', port: 53 }];
  const metadata = { name: 'kube-dns', namespace: 'kube-system' };
  await cluster.apply({ apiVersion: 'v1', kind: 'Service', metadata, spec: { clusterIP: CLUSTER_DNS, ports } });
  await cluster.apply({
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { ...metadata, labels: { 'kubernetes.io/service-name': 'kube-dns' } },
    addressType: 'IPv4',
    endpoints: [{ addresses: [HOST] }],
    ports: [{ name: 'dns', protocol: 'UDP', port }],
  });
  return socket;
}

/** Null for a name of the cluster that is not known yet: the client asks again. RFC 1035 §4. */
function answer(query: Buffer, known: ReadonlyMap<string, string>): Buffer | null {
  const labels: string[] = [];
  let at = 12;
  for (let length = query[at]!; length !== 0; length = query[at]!) {
    labels.push(query.toString('latin1', at + 1, at + 1 + length).toLowerCase());
    at += 1 + length;
  }
  const question = query.subarray(12, at + 5);
  const isAddress = question.readUInt16BE(question.length - 4) === 1;
  const name = labels.join('.');
  const address = known.get(name);
  const isOfCluster = /^[^.]+\.[^.]+\.svc\.cluster\.local$/.test(name);
  if (address === undefined && isOfCluster && /^culvert/.test(name)) return null;
  const header = Buffer.alloc(12);
  query.copy(header, 0, 0, 2);
  header.writeUInt16BE(address === undefined ? 0x8583 : 0x8580, 2);
  header.writeUInt16BE(1, 4);
  if (address === undefined || !isAddress) return Buffer.concat([header, question]);
  header.writeUInt16BE(1, 6);
  const record = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, ...address.split('.').map(Number)]);
  return Buffer.concat([header, question, record]);
}
