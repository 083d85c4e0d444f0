import assert from 'node:assert/strict';
import { test } from 'node:test';
import { expose } from '../../src/metrics/exposition.ts';
import { createRegistry } from '../../src/metrics/registry.ts';
import { createTrafficCounters } from '../../src/metrics/traffic.ts';
import type { ResponseFlag, TrafficLabels } from '../../src/metrics/traffic-labels.ts';
import { createTrafficStore } from '../../src/metrics/traffic-store.ts';
import { trafficLabels, workload } from './labels.ts';

/** Label text of the opened, then of the other samples, after one connection. */
function linesAfter(labels: TrafficLabels, flag: ResponseFlag = '-'): string[] {
  const counters = createTrafficCounters();
  counters.close(counters.open(labels), flag);
  const registry = createRegistry();
  createTrafficStore(registry).merge('w', counters.report(), 0);
  return [...expose(registry)]
    .join('')
    .split('\n')
    .filter((line) => line.startsWith('istio'));
}

const server =
  'destination_service="server.demo.svc.cluster.local",destination_service_namespace="demo",destination_service_name="server",destination_workload="server",destination_canonical_service="server",destination_canonical_revision="latest",destination_workload_namespace="demo",destination_principal="spiffe://cluster.local/ns/demo/sa/server",destination_app="server",destination_version="latest",destination_cluster="Kubernetes"';
const client = (principal: string) =>
  `source_workload="client",source_canonical_service="client",source_canonical_revision="latest",source_workload_namespace="demo",source_principal="${principal}",source_app="client",source_version="latest",source_cluster="Kubernetes"`;
const nobody =
  'source_workload="unknown",source_canonical_service="unknown",source_canonical_revision="unknown",source_workload_namespace="unknown",source_principal="unknown",source_app="unknown",source_version="unknown",source_cluster="unknown"';
const nowhere =
  'destination_service="unknown",destination_service_namespace="unknown",destination_service_name="unknown",destination_workload="unknown",destination_canonical_service="unknown",destination_canonical_revision="unknown",destination_workload_namespace="unknown",destination_principal="unknown",destination_app="unknown",destination_version="unknown",destination_cluster="unknown"';
const unknownPlaces =
  'source_region="unknown",source_zone="unknown",destination_region="unknown",destination_zone="unknown"';

const cases: readonly (readonly [what: string, labels: TrafficLabels, printed: string])[] = [
  [
    'a tunnel between known workloads',
    trafficLabels(),
    `reporter="source",${client('spiffe://cluster.local/ns/demo/sa/client')},${server},request_protocol="tcp",response_flags="-",connection_security_policy="mutual_tls",${unknownPlaces}`,
  ],
  [
    'plain text proves no source, but the destination keeps its identity',
    trafficLabels({ reporter: 'destination', sourcePrincipal: '', mutualTls: false }),
    `reporter="destination",${client('unknown')},${server},request_protocol="tcp",response_flags="-",connection_security_policy="unknown",${unknownPlaces}`,
  ],
  [
    'an unknown source of a known destination',
    trafficLabels({ reporter: 'destination', source: null, sourcePrincipal: '', mutualTls: false }),
    `reporter="destination",${nobody},${server},request_protocol="tcp",response_flags="-",connection_security_policy="unknown",${unknownPlaces}`,
  ],
  [
    'nothing known: no places',
    trafficLabels({ source: null, destination: null, service: null, sourcePrincipal: '', mutualTls: false }),
    `reporter="source",${nobody},${nowhere},request_protocol="tcp",response_flags="-",connection_security_policy="unknown"`,
  ],
  [
    'places, and an app that baggage names otherwise',
    trafficLabels({
      source: workload('client', { region: 'r1', zone: 'z1' }),
      destination: workload('server', { region: 'r2' }),
      sourceApp: 'client-deployment',
    }),
    `reporter="source",${client('spiffe://cluster.local/ns/demo/sa/client').replace('source_app="client"', 'source_app="client-deployment"')},${server},request_protocol="tcp",response_flags="-",connection_security_policy="mutual_tls",source_region="r1",source_zone="z1",destination_region="r2",destination_zone="unknown"`,
  ],
];

for (const [what, labels, printed] of cases) {
  test(`labels of ${what}`, () => {
    assert.deepEqual(linesAfter(labels), [
      `istio_tcp_connections_opened_total{${printed}} 1`,
      `istio_tcp_connections_closed_total{${printed}} 1`,
      `istio_tcp_received_bytes_total{${printed}} 0`,
      `istio_tcp_sent_bytes_total{${printed}} 0`,
    ]);
  });
}

for (const flag of [
  'DENY',
  'CONNECT',
  'TLS_FAILURE',
  'H2_HANDSHAKE_FAILURE',
  'NETWORK_POLICY',
  'IDENTITY_ERROR',
  'CERT_REVOKED',
] as const) {
  test(`a connection that ends with ${flag} is closed and failed with it, opened without`, () => {
    const flags = linesAfter(trafficLabels(), flag).map((line) =>
      /^istio_tcp_(\w+?)(?:_total)\{.*response_flags="([^"]+)"/.exec(line)!.slice(1),
    );
    assert.deepEqual(flags, [
      ['connections_opened', '-'],
      ['connections_closed', flag],
      ['received_bytes', '-'],
      ['sent_bytes', '-'],
      ['connections_failed', flag],
    ]);
  });
}

test('a name that cannot exist does not shift or add labels', () => {
  const [line] = linesAfter(trafficLabels({ source: workload('a\0b\0c\0d\0e\0f') }));
  assert.equal(line?.match(/\w+="/g)?.length, 27);
});
