import { tag, VARINT } from '../../xds/wire.ts';
import { compareText } from '../objects/metadata.ts';
import type { Locality } from '../objects/node.ts';
import {
  encoded,
  type Writer,
  writeFlag,
  writeIp,
  writeMessage,
  writeNumber,
  writeNumbers,
  writeText,
} from './encoding.ts';
import {
  APP_PROTOCOLS,
  type GatewayAddress,
  IP_FAMILIES,
  type LoadBalancing,
  MODES,
  type NetworkAddress,
  SCOPES,
  type ServiceMessage,
  type TargetPort,
  type WorkloadMessage,
} from './messages.ts';

/** `istio.workload.Address` of a workload. */
export function encodeWorkload(workload: WorkloadMessage): Uint8Array {
  return encoded((writer) => writeMessage(writer, 1, () => writeWorkload(writer, workload)));
}

/** `istio.workload.Address` of a service. */
export function encodeService(service: ServiceMessage): Uint8Array {
  return encoded((writer) => writeMessage(writer, 2, () => writeService(writer, service)));
}

function writeWorkload(writer: Writer, workload: WorkloadMessage): void {
  writeText(writer, 1, workload.name);
  writeText(writer, 2, workload.namespace);
  for (const ip of workload.addresses) writeIp(writer, 3, ip);
  writeText(writer, 4, workload.network);
  writeNumber(writer, 5, workload.tunnel === 'none' ? 0 : HBONE);
  writeText(writer, 6, workload.trustDomain);
  writeText(writer, 7, workload.serviceAccount);
  writeGateway(writer, 8, workload.waypoint);
  writeText(writer, 9, workload.node);
  writeText(writer, 10, workload.canonicalName);
  writeText(writer, 11, workload.canonicalRevision);
  writeNumber(writer, 12, workload.isPod ? POD : 0);
  writeText(writer, 13, workload.workloadName);
  writeFlag(writer, 14, workload.tunnel === 'native');
  for (const policy of workload.policies) writeText(writer, 16, policy);
  writeNumber(writer, 17, workload.isHealthy ? 0 : UNHEALTHY);
  writeText(writer, 18, workload.clusterId);
  writeGateway(writer, 19, workload.networkGateway);
  writeText(writer, 20, workload.uid);
  writeText(writer, 21, workload.hostname);
  writeServices(writer, workload.services);
  const { applicationTunnel, locality, capacity } = workload;
  if (applicationTunnel !== null) {
    writeMessage(writer, 23, () => {
      writeNumber(writer, 1, applicationTunnel.protocol === 'PROXY' ? 1 : 0);
      writeNumber(writer, 2, applicationTunnel.port);
    });
  }
  if (locality !== null) writeLocality(writer, locality);
  writeNumber(writer, 25, workload.hostNetwork ? 1 : 0);
  if (capacity !== null) writeMessage(writer, 27, () => writeNumber(writer, 1, capacity));
}

const HBONE = 1;
const POD = 2;
const UNHEALTHY = 1;

/** In the order of their keys; a service without ports is there as well. */
function writeServices(writer: Writer, services: WorkloadMessage['services']): void {
  const entries = [...services];
  if (entries.length > 1) entries.sort(([a], [b]) => compareText(a, b));
  for (const [key, ports] of entries) {
    writeMessage(writer, 22, () => {
      writeText(writer, 1, key);
      writeMessage(writer, 2, () => {
        for (const port of ports) writeMessage(writer, 1, () => writePort(writer, port));
      });
    });
  }
}

function writePort(writer: Writer, { port, target }: TargetPort): void {
  writeNumber(writer, 1, port);
  writeNumber(writer, 2, target);
}

function writeLocality(writer: Writer, { region, zone, subzone }: Locality): void {
  writeMessage(writer, 24, () => {
    writeText(writer, 1, region);
    writeText(writer, 2, zone);
    writeText(writer, 3, subzone);
  });
}

function writeService(writer: Writer, service: ServiceMessage): void {
  writeText(writer, 1, service.name);
  writeText(writer, 2, service.namespace);
  writeText(writer, 3, service.hostname);
  for (const address of service.addresses) writeNetworkAddress(writer, 4, address);
  for (const port of service.ports) {
    writeMessage(writer, 5, () => {
      writePort(writer, port);
      writeNumber(writer, 3, APP_PROTOCOLS[port.protocol]);
    });
  }
  for (const name of service.subjectAltNames) writeText(writer, 6, name);
  writeGateway(writer, 7, service.waypoint);
  if (service.loadBalancing !== null) writeLoadBalancing(writer, service.loadBalancing);
  writeNumber(writer, 9, IP_FAMILIES[service.ipFamilies]);
  writeFlag(writer, 11, service.isCanonical);
  writeFlag(writer, 12, service.ingressUseWaypoint);
  for (const { destination, weight } of service.weightedWaypoints) {
    writeMessage(writer, 13, () => {
      writeGateway(writer, 1, destination);
      writeNumber(writer, 2, weight);
    });
  }
  writeNumber(writer, 14, service.visibility === 'Namespace' ? 1 : 0);
}

function writeLoadBalancing(writer: Writer, { preference, mode, healthPolicy }: LoadBalancing): void {
  writeMessage(writer, 8, () => {
    writeNumbers(
      writer,
      1,
      preference.map((scope) => SCOPES[scope]),
    );
    writeNumber(writer, 2, MODES[mode]);
    writeNumber(writer, 3, healthPolicy === 'AllowAll' ? 1 : 0);
  });
}

function writeGateway(writer: Writer, field: number, gateway: GatewayAddress | null): void {
  if (gateway === null) return;
  const { destination, port } = gateway;
  writeMessage(writer, field, () => {
    if (destination.kind === 'hostname') {
      writeMessage(writer, 1, () => {
        writeText(writer, 1, destination.namespace);
        writeText(writer, 2, destination.hostname);
      });
    } else writeNetworkAddress(writer, 2, { ...destination, length: null });
    writeNumber(writer, 3, port);
  });
}

function writeNetworkAddress(writer: Writer, field: number, { network, ip, length }: NetworkAddress): void {
  writeMessage(writer, field, () => {
    writeText(writer, 1, network);
    writeIp(writer, 2, ip);
    // Optional: a block of length 0 is not one address.
    if (length !== null) writer.uint32(tag(3, VARINT)).uint32(length);
  });
}
