import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatSocketAddress } from '../../src/netns/address.ts';
import { type InboundHboneRequest, planInboundHbone, planInboundPlaintext } from '../../src/routing/inbound.ts';
import type { InboundPlan } from '../../src/routing/plan.ts';
import type { MeshUpdate } from '../../src/state/mesh-state.ts';
import { byAddress, byHostname, meshOf, pod, service, workload } from '../state/mesh-builder.ts';

const LOCAL = '10.0.0.2';
const PEER = '10.0.0.1';
const ILLEGAL = new Set([15001, 15006, 15008]);
const key = (name: string) => `default/${name}.default.svc.cluster.local`;
const host = (name: string) => `${name}.default.svc.cluster.local`;

/** A plan in one line. */
function summary(plan: InboundPlan): string {
  if (plan.kind === 'reject') return `${plan.status} ${plan.reason.tag}: ${plan.reason.message}`;
  const { target, source, service: labels, appTunnel } = plan;
  return [
    `deliver to ${formatSocketAddress(target)}`,
    source && `from ${source.name}`,
    labels && `of ${labels.name}`,
    appTunnel && `with ${appTunnel.protocol} ${formatSocketAddress(appTunnel.destination)}`,
  ]
    .filter((part) => part !== null)
    .join(' ');
}

interface Row {
  readonly what: string;
  readonly authority: string;
  readonly plan: string;
  readonly mesh?: MeshUpdate;
  readonly request?: Partial<InboundHboneRequest>;
}

const local = (fields: Parameters<typeof workload>[1] = {}) => workload('server', { workloadIps: [LOCAL], ...fields });
const client = workload('client', { workloadIps: [PEER] });
const memberOf = (...services: string[]) =>
  local({ services: Object.fromEntries(services.map((name) => [key(name), {}])) });

const authorities: readonly Row[] = [
  { what: "the pod's own address", authority: `${LOCAL}:8080`, plan: `deliver to ${LOCAL}:8080` },
  {
    what: "the pod's own IPv6 address, however it is written",
    authority: '[2001:DB8:0::2]:8080',
    request: { localIp: '2001:db8::2' },
    plan: 'deliver to [2001:db8::2]:8080',
  },
  {
    what: 'another address',
    authority: '10.0.0.3:8080',
    plan: `400 ip-mismatch: ip mismatch: ${LOCAL} != 10.0.0.3`,
  },
  ...[
    '',
    '8080',
    'host',
    'host:',
    ':80',
    `${LOCAL}`,
    `${LOCAL}:0`,
    `${LOCAL}:65536`,
    'host:x',
    '2001:db8::2:80',
    'a b:80',
    'u@host:80',
    '10.0.0:80',
    `http://${LOCAL}:80`,
  ].map((authority) => ({
    what: `the unreadable authority "${authority}"`,
    authority,
    plan: `400 bad-authority: no valid authority pseudo header: ${authority}`,
  })),
  ...[15001, 15006, 15008].map((port) => ({
    what: `the agent's own port ${port}`,
    authority: `${LOCAL}:${port}`,
    plan: '503 self-call: attempted recursive call to ourselves',
  })),
];

const toService = (fields: Parameters<typeof service>[1]): MeshUpdate => ({
  workloads: [local()],
  services: [service('web', { vips: ['/10.96.0.1'], ...fields })],
});
const waypointService = service('wp', { vips: ['/10.96.0.9'], ports: { 15008: 15008 } });
const mismatch = `400 ip-mismatch: ip mismatch: ${LOCAL} != 10.96.0.1`;
const delivered = `deliver to ${LOCAL}:80`;

const waypoints: readonly Row[] = [
  { what: 'a VIP of a service without waypoint', authority: '10.96.0.1:80', mesh: toService({}), plan: mismatch },
  {
    what: 'a VIP of a service we are the waypoint of by address',
    authority: '10.96.0.1:80',
    mesh: toService({ waypoint: byAddress(LOCAL) }),
    plan: delivered,
  },
  {
    what: 'a VIP of a service whose waypoint is another address',
    authority: '10.96.0.1:80',
    mesh: toService({ waypoint: byAddress('10.0.0.9') }),
    plan: mismatch,
  },
  {
    what: 'a VIP of a service whose waypoint service we are an endpoint of, by hostname',
    authority: '10.96.0.1:80',
    mesh: {
      workloads: [memberOf('wp')],
      services: [service('web', { vips: ['/10.96.0.1'], waypoint: byHostname(host('wp')) }), waypointService],
    },
    plan: delivered,
  },
  {
    what: 'a VIP of a service whose waypoint service we are an endpoint of, by VIP',
    authority: '10.96.0.1:80',
    mesh: {
      workloads: [memberOf('wp')],
      services: [service('web', { vips: ['/10.96.0.1'], waypoint: byAddress('10.96.0.9') }), waypointService],
    },
    plan: delivered,
  },
  {
    what: 'a VIP of a service whose waypoint service has other endpoints',
    authority: '10.96.0.1:80',
    mesh: {
      workloads: [local(), workload('other', { services: { [key('wp')]: {} } })],
      services: [service('web', { vips: ['/10.96.0.1'], waypoint: byAddress('10.96.0.9') }), waypointService],
    },
    plan: mismatch,
  },
  {
    what: 'a VIP of a service we are a weighted waypoint of, beside the primary one',
    authority: '10.96.0.1:80',
    mesh: toService({
      waypoint: byAddress('10.0.0.9'),
      weightedWaypoints: [
        { destination: byAddress('10.0.0.9'), weight: 90 },
        { destination: byAddress(LOCAL), weight: 10 },
      ],
    }),
    plan: delivered,
  },
  {
    what: 'the address of a workload we are the waypoint of',
    authority: '10.0.0.7:80',
    mesh: { workloads: [local(), workload('behind', { workloadIps: ['10.0.0.7'], waypoint: byAddress(LOCAL) })] },
    plan: delivered,
  },
  {
    what: 'the address of a workload we are not the waypoint of',
    authority: '10.0.0.7:80',
    mesh: { workloads: [local(), workload('behind', { workloadIps: ['10.0.0.7'], waypoint: byAddress(PEER) })] },
    plan: `400 ip-mismatch: ip mismatch: ${LOCAL} != 10.0.0.7`,
  },
  {
    what: 'a VIP whose waypoint reference leads nowhere',
    authority: '10.96.0.1:80',
    mesh: toService({ waypoint: byHostname('gone.example.com') }),
    plan: mismatch,
  },
];

const tunnelled = (protocol: 'NONE' | 'PROXY', port: number | null, services: string[] = []) =>
  local({
    applicationTunnel: { protocol, port },
    services: Object.fromEntries(services.map((name) => [key(name), {}])),
  });

const tunnels: readonly Row[] = [
  {
    what: 'any address, when the application wants a PROXY header on a port of its own',
    authority: '10.96.0.1:80',
    mesh: { workloads: [tunnelled('PROXY', 15088)] },
    plan: `deliver to ${LOCAL}:15088 with PROXY 10.96.0.1:80`,
  },
  {
    what: 'any address, when the application wants a PROXY header on the port asked for',
    authority: '10.96.0.1:80',
    mesh: { workloads: [tunnelled('PROXY', null)] },
    plan: `deliver to ${LOCAL}:80 with PROXY 10.96.0.1:80`,
  },
  {
    what: 'any address, when the application has a plain tunnel on a port of its own',
    authority: '10.96.0.1:80',
    mesh: { workloads: [tunnelled('NONE', 15088)] },
    plan: `deliver to ${LOCAL}:15088`,
  },
  {
    what: 'an own port of the agent that the tunnel port replaces',
    authority: '10.96.0.1:15008',
    mesh: { workloads: [tunnelled('PROXY', 15088)] },
    plan: `deliver to ${LOCAL}:15088 with PROXY 10.96.0.1:15008`,
  },
  {
    what: 'a hostname, announced to the application by a VIP of this network and the service port',
    authority: `${host('web')}:80`,
    mesh: {
      workloads: [tunnelled('PROXY', 15088)],
      services: [service('web', { vips: ['n2/10.96.0.7', '/2001:db8::96', '/10.96.0.1'] })],
    },
    plan: `deliver to ${LOCAL}:15088 of web with PROXY 10.96.0.1:80`,
  },
  {
    what: 'a hostname of a service without VIP',
    authority: `${host('web')}:80`,
    mesh: { workloads: [tunnelled('PROXY', 15088)], services: [service('web')] },
    plan: `503 service-without-address: requested service ${host('web')} found, but has no IP addresses`,
  },
  {
    what: 'a hostname of a service without VIP, when there is no PROXY header to fill',
    authority: `${host('web')}:80`,
    mesh: { workloads: [tunnelled('NONE', 15088)], services: [service('web')] },
    plan: `deliver to ${LOCAL}:15088 of web`,
  },
];

const hostnames: readonly Row[] = [
  {
    what: "a hostname, by the service's target port",
    authority: `${host('web')}:80`,
    mesh: { workloads: [memberOf('web')], services: [service('web')] },
    plan: `deliver to ${LOCAL}:8080 of web`,
  },
  {
    what: 'a hostname, by our own mapping of a named port',
    authority: `${host('web')}:80`,
    mesh: {
      workloads: [local({ services: { [key('web')]: { 80: 7070 } } })],
      services: [service('web', { ports: { 80: 0 } })],
    },
    plan: `deliver to ${LOCAL}:7070 of web`,
  },
  {
    what: 'a hostname whose named port we do not know',
    authority: `${host('web')}:80`,
    mesh: { workloads: [memberOf('web')], services: [service('web', { ports: { 80: 0 } })] },
    plan: `503 unresolvable-port: requested service ${host('web')}:80 found, but cannot resolve port`,
  },
  {
    what: 'a hostname with a port the service does not have',
    authority: `${host('web')}:81`,
    mesh: { workloads: [memberOf('web')], services: [service('web')] },
    plan: `503 unresolvable-port: requested service ${host('web')}:81 found, but cannot resolve port`,
  },
  {
    what: 'an unknown hostname',
    authority: 'gone.example.com:80',
    plan: '503 unknown-hostname: no service or workload for hostname: gone.example.com',
  },
  {
    what: "a hostname that leads to the agent's own port",
    authority: `${host('web')}:80`,
    mesh: { workloads: [memberOf('web')], services: [service('web', { ports: { 80: 15008 } })] },
    plan: '503 self-call: attempted recursive call to ourselves',
  },
];

const telemetry: readonly Row[] = [
  {
    what: 'a known peer',
    authority: `${LOCAL}:8080`,
    mesh: { workloads: [local(), client] },
    plan: `deliver to ${LOCAL}:8080 from client`,
  },
  {
    what: 'a peer of this network, said in other letters',
    authority: `${LOCAL}:8080`,
    mesh: { workloads: [local({ network: 'Net' }), workload('client', { workloadIps: [PEER], network: 'Net' })] },
    request: { fromNetwork: 'NET' },
    plan: `deliver to ${LOCAL}:8080 from client`,
  },
  {
    what: 'a peer behind a gateway, whose address says nothing here',
    authority: `${LOCAL}:8080`,
    mesh: { workloads: [local(), client] },
    request: { fromNetwork: 'n2' },
    plan: `deliver to ${LOCAL}:8080`,
  },
  {
    what: 'the service the client names, when it is one of ours',
    authority: `${LOCAL}:8080`,
    mesh: { workloads: [memberOf('a', 'b')], services: [service('a'), service('b')] },
    request: { forwardedHost: host('b') },
    plan: `deliver to ${LOCAL}:8080 of b`,
  },
  {
    what: 'a service by its port, when the client names one that is not ours',
    authority: `${LOCAL}:8080`,
    mesh: {
      workloads: [memberOf('a', 'b')],
      services: [service('a', { ports: { 80: 1 } }), service('b'), service('c')],
    },
    request: { forwardedHost: host('c') },
    plan: `deliver to ${LOCAL}:8080 of b`,
  },
  {
    what: 'a service by our own mapping of its port',
    authority: `${LOCAL}:7070`,
    mesh: {
      workloads: [local({ services: { [key('a')]: { 80: 7070 } } })],
      services: [service('a', { ports: { 80: 0 } })],
    },
    plan: `deliver to ${LOCAL}:7070 of a`,
  },
  {
    what: 'a Kubernetes service rather than the host of a ServiceEntry',
    authority: `${LOCAL}:8080`,
    mesh: {
      workloads: [local({ services: { 'default/a.example.com': {}, [key('b')]: {} } })],
      services: [service('a', { hostname: 'a.example.com' }), service('b')],
    },
    plan: `deliver to ${LOCAL}:8080 of b`,
  },
  {
    what: 'no service, when none leads to the port',
    authority: `${LOCAL}:9999`,
    mesh: { workloads: [memberOf('a')], services: [service('a')] },
    plan: `deliver to ${LOCAL}:9999`,
  },
];

for (const [area, rows] of Object.entries({ authorities, waypoints, tunnels, hostnames, telemetry })) {
  for (const { what, authority, plan, mesh, request } of rows) {
    test(`${area}: ${what}`, () => {
      const state = meshOf({ workloads: [local()] }, mesh ?? {});
      const network = state.localWorkload(pod('server'))!.network;
      const made = planInboundHbone(
        state,
        pod('server'),
        { localIp: LOCAL, peerIp: PEER, authority, forwardedHost: null, fromNetwork: null, ...request },
        network,
        ILLEGAL,
      );
      assert.equal(summary(made), plan);
      assert.deepEqual(structuredClone(made), made);
    });
  }
}

test('a tunnel to a pod that is not in the mesh state is refused by name', () => {
  const request = { localIp: LOCAL, peerIp: PEER, authority: `${LOCAL}:80`, forwardedHost: null, fromNetwork: null };
  assert.equal(
    summary(planInboundHbone(meshOf(), pod('server', 'ns', 'sa'), request, '', ILLEGAL)),
    '503 unknown-local-workload: failed to fetch information about local workload: sa.ns (server)',
  );
});

const plaintext: readonly [what: string, mesh: MeshUpdate, port: number, plan: string][] = [
  ['delivers where it was sent', { workloads: [local()] }, 8080, `deliver to ${LOCAL}:8080`],
  [
    'names peer and service',
    { workloads: [memberOf('a'), client], services: [service('a')] },
    8080,
    `deliver to ${LOCAL}:8080 from client of a`,
  ],
  [
    'refuses a port of the agent',
    { workloads: [local()] },
    15008,
    '503 self-call: attempted recursive call to ourselves',
  ],
  [
    'refuses a pod that is not in the mesh state',
    {},
    8080,
    '503 unknown-local-workload: failed to fetch information about local workload: server.default (server)',
  ],
];

for (const [what, mesh, port, plan] of plaintext) {
  test(`a plaintext connection: ${what}`, () => {
    const request = { peerIp: PEER, originalDestination: { ip: LOCAL, port } };
    assert.equal(summary(planInboundPlaintext(meshOf(mesh), pod('server'), request, '', ILLEGAL)), plan);
  });
}
