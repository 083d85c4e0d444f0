import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseSocketAddress } from '../../src/netns/address.ts';
import { EndpointSet } from '../../src/routing/endpoint-set.ts';
import type { ResolvedNames } from '../../src/routing/names.ts';
import { planOutbound } from '../../src/routing/outbound.ts';
import type { OutboundPlan } from '../../src/routing/plan.ts';
import type { MeshUpdate } from '../../src/state/mesh-state.ts';
import type { GatewayAddress } from '../../src/state/types.ts';
import { byAddress, byHostname, meshOf, pod, service, workload } from '../state/mesh-builder.ts';

const CLIENT_IP = '10.0.0.1';
const client = workload('client', { workloadIps: [CLIENT_IP, '2001:db8::1'] });
const id = (name: string) => `spiffe://cluster.local/ns/default/sa/${name}`;
const key = (name: string) => `default/${name}.default.svc.cluster.local`;

const short = (identity: string) => identity.replace('spiffe://cluster.local/ns/default/sa/', '@');

/** A plan in one line per endpoint: how, where, authority, identities, share, service. */
function summary(plan: OutboundPlan): string[] {
  if (plan.kind === 'reject') return [`${plan.reason.tag}: ${plan.reason.message}`];
  return [...new EndpointSet(plan.groups)].map(
    ({ protocol, address, authority, expectedIdentities, inner, weight, destination }) =>
      [
        protocol,
        `${address.ip} ${address.port}`,
        authority === '' ? null : `for ${authority}`,
        ...expectedIdentities.map(short),
        inner && ['inner', ...inner.expectedIdentities.map(short), `from "${inner.forwardedNetwork}"`].join(' '),
        weight === 1 ? null : `×${weight}`,
        destination === null ? 'nobody' : `to ${destination.name}`,
        plan.service && `of ${plan.service.name}`,
      ]
        .filter((part) => part !== null)
        .join(' '),
  );
}

interface Row {
  readonly what: string;
  readonly mesh: MeshUpdate;
  readonly target: string;
  readonly plan: readonly string[];
  readonly peerIp?: string;
}

const server = workload('server', { workloadIps: ['10.0.0.2'] });
const plain = workload('plain', { workloadIps: ['10.0.0.3'], protocol: 'TCP' });
const member = (name: string, ip: string, fields: Parameters<typeof workload>[1] = {}) =>
  workload(name, { workloadIps: [ip], services: { [key('web')]: {} }, ...fields });
const web = (fields: Parameters<typeof service>[1] = {}) => service('web', { vips: ['/10.96.0.1'], ...fields });

/** A waypoint with a service of its own, reachable by VIP and by hostname. */
const waypoint = workload('wp', { workloadIps: ['10.0.0.9'], services: { [key('wp')]: {} } });
const waypointService = service('wp', { vips: ['/10.96.0.9'], ports: { 15008: 15008 } });
const canary = workload('canary', { workloadIps: ['10.0.0.8'] });

const direct: readonly Row[] = [
  {
    what: 'an unknown destination passes through untouched',
    mesh: {},
    target: '203.0.113.7:443',
    plan: ['tcp 203.0.113.7 443 nobody'],
  },
  {
    what: 'an HBONE workload gets a tunnel to its port 15008',
    mesh: { workloads: [server] },
    target: '10.0.0.2:8080',
    plan: ['hbone 10.0.0.2 15008 for 10.0.0.2:8080 @server to server'],
  },
  {
    what: 'an HBONE workload by IPv6 has brackets in its authority',
    mesh: { workloads: [workload('six', { workloadIps: ['10.0.0.6', '2001:db8::6'] })] },
    target: '[2001:db8::6]:8080',
    plan: ['hbone 2001:db8::6 15008 for [2001:db8::6]:8080 @six to six'],
  },
  {
    what: 'a workload without HBONE gets plain TCP and no identity',
    mesh: { workloads: [plain] },
    target: '10.0.0.3:8080',
    plan: ['tcp 10.0.0.3 8080 to plain'],
  },
  {
    what: 'a workload of weight 0 is still reached by its own address',
    mesh: { workloads: [workload('server', { workloadIps: ['10.0.0.2'], capacity: 0 })] },
    target: '10.0.0.2:8080',
    plan: ['hbone 10.0.0.2 15008 for 10.0.0.2:8080 @server to server'],
  },
  {
    what: 'an unhealthy workload is still reached by its own address',
    mesh: { workloads: [workload('server', { workloadIps: ['10.0.0.2'], status: 'Unhealthy' })] },
    target: '10.0.0.2:8080',
    plan: ['hbone 10.0.0.2 15008 for 10.0.0.2:8080 @server to server'],
  },
  {
    what: 'a host-network workload is not known by its address',
    mesh: { workloads: [workload('server', { workloadIps: ['10.0.0.2'], networkMode: 'HostNetwork' })] },
    target: '10.0.0.2:8080',
    plan: ['tcp 10.0.0.2 8080 nobody'],
  },
  {
    what: 'a workload of another network is not known by an address of this one',
    mesh: { workloads: [workload('server', { workloadIps: ['10.0.0.2'], network: 'n2' })] },
    target: '10.0.0.2:8080',
    plan: ['tcp 10.0.0.2 8080 nobody'],
  },
];

const services: readonly Row[] = [
  {
    what: 'a service offers all its endpoints, with the mapped port and their weights',
    mesh: { services: [web()], workloads: [member('a', '10.0.0.2'), member('b', '10.0.0.3', { capacity: 5 })] },
    target: '10.96.0.1:80',
    plan: [
      'hbone 10.0.0.2 15008 for 10.0.0.2:8080 @a to a of web',
      'hbone 10.0.0.3 15008 for 10.0.0.3:8080 @b ×5 to b of web',
    ],
  },
  {
    what: "an endpoint's own port mapping wins over the service's",
    mesh: { services: [web()], workloads: [member('a', '10.0.0.2', { services: { [key('web')]: { 80: 9090 } } })] },
    target: '10.96.0.1:80',
    plan: ['hbone 10.0.0.2 15008 for 10.0.0.2:9090 @a to a of web'],
  },
  {
    what: 'a named port takes the endpoints that know the name',
    mesh: {
      services: [web({ ports: { 80: 0 } })],
      workloads: [member('a', '10.0.0.2', { services: { [key('web')]: { 80: 7070 } } }), member('b', '10.0.0.3')],
    },
    target: '10.96.0.1:80',
    plan: ['hbone 10.0.0.2 15008 for 10.0.0.2:7070 @a to a of web'],
  },
  {
    what: 'a port the service does not list has no upstream, even when an endpoint maps it',
    mesh: { services: [web()], workloads: [member('a', '10.0.0.2', { services: { [key('web')]: { 81: 81 } } })] },
    target: '10.96.0.1:81',
    plan: ['no-healthy-upstream: no healthy upstream: 10.96.0.1:81'],
  },
  {
    what: 'a service without endpoints has no upstream',
    mesh: { services: [web()] },
    target: '10.96.0.1:80',
    plan: ['no-healthy-upstream: no healthy upstream: 10.96.0.1:80'],
  },
  {
    what: 'a service whose endpoints all weigh nothing has no upstream',
    mesh: { services: [web()], workloads: [member('a', '10.0.0.2', { capacity: 0 })] },
    target: '10.96.0.1:80',
    plan: ['no-healthy-upstream: no healthy upstream: 10.96.0.1:80'],
  },
  {
    what: 'unhealthy endpoints are left out',
    mesh: {
      services: [web()],
      workloads: [member('a', '10.0.0.2', { status: 'Unhealthy' }), member('b', '10.0.0.3')],
    },
    target: '10.96.0.1:80',
    plan: ['hbone 10.0.0.3 15008 for 10.0.0.3:8080 @b to b of web'],
  },
  {
    what: 'unhealthy endpoints are offered when the service takes all',
    mesh: {
      services: [web({ loadBalancer: { mode: 'Standard', routingPreferences: [], healthPolicy: 'AllowAll' } })],
      workloads: [member('a', '10.0.0.2', { status: 'Unhealthy' })],
    },
    target: '10.96.0.1:80',
    plan: ['hbone 10.0.0.2 15008 for 10.0.0.2:8080 @a to a of web'],
  },
  {
    what: 'a passthrough service is left alone',
    mesh: {
      services: [web({ loadBalancer: { mode: 'Passthrough', routingPreferences: [], healthPolicy: 'AllowAll' } })],
      workloads: [member('a', '10.0.0.2')],
    },
    target: '10.96.0.1:80',
    plan: ['tcp 10.96.0.1 80 nobody'],
  },
  {
    what: 'alternative names of the service are accepted besides the identity of the endpoint, once each',
    mesh: {
      services: [web({ subjectAltNames: [id('z'), id('a'), id('0')] })],
      workloads: [member('a', '10.0.0.2')],
    },
    target: '10.96.0.1:80',
    plan: ['hbone 10.0.0.2 15008 for 10.0.0.2:8080 @0 @a @z to a of web'],
  },
  {
    what: 'plain endpoints of a service are reached by plain TCP',
    mesh: { services: [web()], workloads: [member('a', '10.0.0.2', { protocol: 'TCP' })] },
    target: '10.96.0.1:80',
    plan: ['tcp 10.0.0.2 8080 to a of web'],
  },
  {
    what: 'host-network endpoints of a service are reached',
    mesh: { services: [web()], workloads: [member('a', '10.0.0.2', { networkMode: 'HostNetwork', protocol: 'TCP' })] },
    target: '10.96.0.1:80',
    plan: ['tcp 10.0.0.2 8080 to a of web'],
  },
  {
    what: 'an address inside a CIDR VIP leads to the service',
    mesh: {
      services: [web({ vips: [], cidrVips: [{ network: '', cidr: '10.97.0.0/24' }] })],
      workloads: [member('a', '10.0.0.2')],
    },
    target: '10.97.0.77:80',
    plan: ['hbone 10.0.0.2 15008 for 10.0.0.2:8080 @a to a of web'],
  },
  {
    what: 'a pod of a headless service is reached by its own address',
    mesh: { services: [web({ vips: [] })], workloads: [member('a', '10.0.0.2')] },
    target: '10.0.0.2:8080',
    plan: ['hbone 10.0.0.2 15008 for 10.0.0.2:8080 @a to a'],
  },
  {
    what: 'a service that is private to another namespace is as good as unknown',
    mesh: { services: [web({ namespace: 'other', visibility: 'Namespace' })] },
    target: '10.96.0.1:80',
    plan: ['tcp 10.96.0.1 80 nobody'],
  },
  {
    what: 'an address of both a service and a workload goes to the service',
    mesh: { services: [web({ vips: ['/10.0.0.2'] })], workloads: [server, member('a', '10.0.0.3')] },
    target: '10.0.0.2:80',
    plan: ['hbone 10.0.0.3 15008 for 10.0.0.3:8080 @a to a of web'],
  },
  {
    what: 'an address of both a service and a workload goes to the workload when the service has no upstream',
    mesh: { services: [web({ vips: ['/10.0.0.2'] })], workloads: [server] },
    target: '10.0.0.2:80',
    plan: ['hbone 10.0.0.2 15008 for 10.0.0.2:80 @server to server'],
  },
  {
    what: "the client's address family is kept where the endpoint has it",
    mesh: {
      services: [web({ vips: ['/10.96.0.1', '/2001:db8:96::1'] })],
      workloads: [member('a', '10.0.0.2', { workloadIps: ['10.0.0.2', '2001:db8::2'] }), member('b', '10.0.0.3')],
    },
    target: '[2001:db8:96::1]:80',
    plan: [
      'hbone 2001:db8::2 15008 for [2001:db8::2]:8080 @a to a of web',
      'hbone 10.0.0.3 15008 for 10.0.0.3:8080 @b to b of web',
    ],
  },
  {
    what: 'addresses of a family the service excludes are not used',
    mesh: {
      services: [web({ vips: ['/2001:db8:96::1'], ipFamilies: 'IPv4' })],
      workloads: [member('a', '10.0.0.2', { workloadIps: ['2001:db8::2', '10.0.0.2'] })],
    },
    target: '[2001:db8:96::1]:80',
    plan: ['hbone 10.0.0.2 15008 for 10.0.0.2:8080 @a to a of web'],
  },
];

const unreachable: readonly Row[] = [
  {
    what: 'an endpoint without any address is no candidate',
    mesh: { services: [web()], workloads: [member('a', '', { workloadIps: [] })] },
    target: '10.96.0.1:80',
    plan: ['no-healthy-upstream: no healthy upstream: 10.96.0.1:80'],
  },
  {
    what: 'an endpoint whose families are all excluded has no valid destination',
    mesh: { services: [web({ ipFamilies: 'IPv6' })], workloads: [member('a', '10.0.0.2')] },
    target: '10.96.0.1:80',
    plan: ['no-valid-destination: no valid routing destination for workload: a'],
  },
  {
    what: 'an endpoint of another network without gateway has no valid destination',
    mesh: { services: [web()], workloads: [member('a', '10.0.0.2', { network: 'n2' })] },
    target: '10.96.0.1:80',
    plan: ['no-valid-destination: no valid routing destination for workload: a'],
  },
  {
    what: 'endpoints that cannot be used are left out as long as one can',
    mesh: {
      services: [web()],
      workloads: [
        member('a', '', { workloadIps: [], hostname: 'a.example.com' }),
        member('b', '10.0.0.2', { network: 'n2' }),
        member('c', '10.0.0.3'),
      ],
    },
    target: '10.96.0.1:80',
    plan: ['hbone 10.0.0.3 15008 for 10.0.0.3:8080 @c to c of web'],
  },
];

const wpByAddress = byAddress('10.0.0.9');
const waypoints: readonly Row[] = [
  {
    what: "a workload's waypoint by the address of a workload carries the original target",
    mesh: { workloads: [workload('server', { workloadIps: ['10.0.0.2'], waypoint: wpByAddress }), waypoint] },
    target: '10.0.0.2:8080',
    plan: ['hbone 10.0.0.9 15008 for 10.0.0.2:8080 @wp to wp'],
  },
  {
    what: "a workload's waypoint by VIP",
    mesh: {
      workloads: [workload('server', { workloadIps: ['10.0.0.2'], waypoint: byAddress('10.96.0.9') }), waypoint],
      services: [waypointService],
    },
    target: '10.0.0.2:8080',
    plan: ['hbone 10.0.0.9 15008 for 10.0.0.2:8080 @wp to wp'],
  },
  {
    what: "a plain workload's waypoint is used too",
    mesh: {
      workloads: [workload('p', { workloadIps: ['10.0.0.2'], protocol: 'TCP', waypoint: wpByAddress }), waypoint],
    },
    target: '10.0.0.2:8080',
    plan: ['hbone 10.0.0.9 15008 for 10.0.0.2:8080 @wp to wp'],
  },
  {
    what: "a workload's waypoint that is unknown is never bypassed",
    mesh: { workloads: [workload('server', { workloadIps: ['10.0.0.2'], waypoint: wpByAddress })] },
    target: '10.0.0.2:8080',
    plan: ['unknown-waypoint: unknown waypoint: waypoint 10.0.0.9 not found'],
  },
  {
    what: "a workload's waypoint is not used when the workload was addressed by a service",
    mesh: { services: [web()], workloads: [member('a', '10.0.0.2', { waypoint: wpByAddress }), waypoint] },
    target: '10.96.0.1:80',
    plan: ['hbone 10.0.0.2 15008 for 10.0.0.2:8080 @a to a of web'],
  },
  {
    what: "a service's waypoint by address carries the VIP and the service's own port",
    mesh: { services: [web({ waypoint: wpByAddress })], workloads: [member('a', '10.0.0.2'), waypoint] },
    target: '10.96.0.1:80',
    plan: ['hbone 10.0.0.9 15008 for 10.96.0.1:80 @wp to wp of web'],
  },
  {
    what: "a service's waypoint by the hostname of a service accepts that service's names too",
    mesh: {
      services: [
        web({ waypoint: byHostname('wp.default.svc.cluster.local') }),
        { ...waypointService, subjectAltNames: [id('alt')] },
      ],
      workloads: [waypoint],
    },
    target: '10.96.0.1:80',
    plan: ['hbone 10.0.0.9 15008 for 10.96.0.1:80 @alt @wp to wp of web'],
  },
  {
    what: "a service's waypoint by the hostname of a workload",
    mesh: {
      services: [web({ waypoint: byHostname('wp.example.com') })],
      workloads: [workload('wp', { workloadIps: ['10.0.0.9'], hostname: 'wp.example.com' })],
    },
    target: '10.96.0.1:80',
    plan: ['hbone 10.0.0.9 15008 for 10.96.0.1:80 @wp to wp of web'],
  },
  {
    what: 'a waypoint by hostname is dialled in the family of the client',
    mesh: {
      services: [
        web({ vips: ['/2001:db8:96::1'], waypoint: byHostname('wp.default.svc.cluster.local') }),
        waypointService,
      ],
      workloads: [workload('wp', { workloadIps: ['10.0.0.9', '2001:db8::9'], services: { [key('wp')]: {} } })],
    },
    target: '[2001:db8:96::1]:80',
    plan: ['hbone 2001:db8::9 15008 for [2001:db8:96::1]:80 @wp to wp of web'],
  },
  {
    what: 'a waypoint by VIP is dialled in the family of that VIP',
    mesh: {
      services: [web({ vips: ['/2001:db8:96::1'], waypoint: byAddress('10.96.0.9') }), waypointService],
      workloads: [workload('wp', { workloadIps: ['2001:db8::9', '10.0.0.9'], services: { [key('wp')]: {} } })],
    },
    target: '[2001:db8:96::1]:80',
    plan: ['hbone 10.0.0.9 15008 for [2001:db8:96::1]:80 @wp to wp of web'],
  },
  {
    what: 'a waypoint on a port of its own is dialled there, mapped by its service',
    mesh: {
      services: [
        web({ waypoint: byHostname('wp.default.svc.cluster.local', 'default', 25008) }),
        { ...waypointService, ports: { 25008: 26008 } },
      ],
      workloads: [waypoint],
    },
    target: '10.96.0.1:80',
    plan: ['hbone 10.0.0.9 26008 for 10.96.0.1:80 @wp to wp of web'],
  },
  {
    what: 'a waypoint with an application tunnel takes a port its service does not list',
    mesh: {
      services: [web({ waypoint: byAddress('10.96.0.9') }), { ...waypointService, ports: {} }],
      workloads: [
        workload('wp', {
          workloadIps: ['10.0.0.9'],
          services: { [key('wp')]: {} },
          applicationTunnel: { protocol: 'PROXY', port: 15088 },
        }),
      ],
    },
    target: '10.96.0.1:80',
    plan: ['hbone 10.0.0.9 15008 for 10.96.0.1:80 @wp to wp of web'],
  },
  {
    what: 'a waypoint whose service does not list the port and without tunnel port is as good as unknown',
    mesh: {
      services: [web({ waypoint: byAddress('10.96.0.9') }), { ...waypointService, ports: {} }],
      workloads: [
        workload('wp', {
          workloadIps: ['10.0.0.9'],
          services: { [key('wp')]: {} },
          applicationTunnel: { protocol: 'PROXY', port: null },
        }),
      ],
    },
    target: '10.96.0.1:80',
    plan: ['unknown-waypoint: unknown waypoint: waypoint 10.96.0.9 not found: no endpoint of it takes port 15008'],
  },
  {
    what: "a service's waypoint that is unknown is never bypassed",
    mesh: { services: [web({ waypoint: byHostname('gone.example.com') })], workloads: [member('a', '10.0.0.2')] },
    target: '10.96.0.1:80',
    plan: ['unknown-waypoint: unknown waypoint: waypoint gone.example.com not found'],
  },
  {
    what: 'a waypoint wins over passthrough',
    mesh: {
      services: [
        web({
          waypoint: wpByAddress,
          loadBalancer: { mode: 'Passthrough', routingPreferences: [], healthPolicy: 'AllowAll' },
        }),
      ],
      workloads: [waypoint],
    },
    target: '10.96.0.1:80',
    plan: ['hbone 10.0.0.9 15008 for 10.96.0.1:80 @wp to wp of web'],
  },
  {
    what: 'weighted waypoints share connections by weight, each spread over its endpoints',
    mesh: {
      services: [
        web({
          waypoint: wpByAddress,
          weightedWaypoints: [
            { destination: byAddress('10.96.0.9'), weight: 9 },
            { destination: byAddress('10.0.0.8'), weight: 1 },
          ],
        }),
        waypointService,
      ],
      workloads: [
        waypoint,
        workload('wp2', { workloadIps: ['10.0.0.7'], services: { [key('wp')]: {} }, capacity: 2 }),
        canary,
      ],
    },
    target: '10.96.0.1:80',
    plan: [
      'hbone 10.0.0.9 15008 for 10.96.0.1:80 @wp ×3 to wp of web',
      'hbone 10.0.0.7 15008 for 10.96.0.1:80 @wp2 ×6 to wp2 of web',
      'hbone 10.0.0.8 15008 for 10.96.0.1:80 @canary to canary of web',
    ],
  },
  {
    what: 'a weighted waypoint of weight 0 is never used',
    mesh: {
      services: [
        web({
          weightedWaypoints: [
            { destination: wpByAddress, weight: 100 },
            { destination: byAddress('10.0.0.8'), weight: 0 },
          ],
        }),
      ],
      workloads: [waypoint, canary],
    },
    target: '10.96.0.1:80',
    plan: ['hbone 10.0.0.9 15008 for 10.96.0.1:80 @wp ×100 to wp of web'],
  },
  {
    what: 'weighted waypoints that all weigh nothing fall back to the waypoint',
    mesh: {
      services: [
        web({ waypoint: wpByAddress, weightedWaypoints: [{ destination: byAddress('10.0.0.8'), weight: 0 }] }),
      ],
      workloads: [waypoint, canary],
    },
    target: '10.96.0.1:80',
    plan: ['hbone 10.0.0.9 15008 for 10.96.0.1:80 @wp to wp of web'],
  },
  {
    what: 'the share of a weighted waypoint that is gone goes to the others',
    mesh: {
      services: [
        web({
          weightedWaypoints: [
            { destination: byAddress('10.0.0.8'), weight: 1 },
            { destination: wpByAddress, weight: 1 },
          ],
        }),
      ],
      workloads: [waypoint],
    },
    target: '10.96.0.1:80',
    plan: ['hbone 10.0.0.9 15008 for 10.96.0.1:80 @wp to wp of web'],
  },
];

/** What DNS knows in the rows below. */
const resolved: ResolvedNames = {
  addresses: (name) =>
    ({
      'v4.example.com': { ips: ['192.0.2.1'], failure: '' },
      'both.example.com': { ips: ['192.0.2.1', '192.0.2.2', '2001:db8:1::1'], failure: '' },
      'gone.example.com': { ips: [], failure: 'ENOTFOUND' },
    })[name] ?? null,
};
const named = (hostname: string, fields: Parameters<typeof workload>[1] = {}) =>
  member('a', '', { workloadIps: [], hostname, uid: 'u', ...fields });

const names: readonly Row[] = [
  {
    what: 'an endpoint that is only a name is dialled at its address',
    mesh: { services: [web()], workloads: [named('v4.example.com', { protocol: 'TCP' })] },
    target: '10.96.0.1:80',
    plan: ['tcp 192.0.2.1 8080 to a of web'],
  },
  {
    what: 'a name with several addresses is dialled at those of the family of the client, which share its weight',
    mesh: { services: [web()], workloads: [named('both.example.com', { capacity: 4 })] },
    target: '10.96.0.1:80',
    plan: [
      'hbone 192.0.2.1 15008 for 192.0.2.1:8080 @a ×2 to a of web',
      'hbone 192.0.2.2 15008 for 192.0.2.2:8080 @a ×2 to a of web',
    ],
  },
  {
    what: 'the other family is better than none',
    mesh: { services: [web({ vips: ['/2001:db8:96::1'] })], workloads: [named('v4.example.com', { protocol: 'TCP' })] },
    target: '[2001:db8:96::1]:80',
    plan: ['tcp 192.0.2.1 8080 to a of web'],
  },
  {
    what: 'addresses of the mesh state are preferred to the name',
    mesh: { services: [web()], workloads: [named('v4.example.com', { workloadIps: ['10.0.0.2'], protocol: 'TCP' })] },
    target: '10.96.0.1:80',
    plan: ['tcp 10.0.0.2 8080 to a of web'],
  },
  {
    what: 'a waypoint that is only a name is dialled at its address',
    mesh: {
      services: [web({ waypoint: byHostname('v4.example.com') })],
      workloads: [workload('wp', { hostname: 'v4.example.com' })],
    },
    target: '10.96.0.1:80',
    plan: ['hbone 192.0.2.1 15008 for 10.96.0.1:80 @wp to wp of web'],
  },
  {
    what: 'a name that is not resolved yet is refused',
    mesh: { services: [web()], workloads: [named('later.example.com')] },
    target: '10.96.0.1:80',
    plan: ['unresolved-hostname: no ip addresses were resolved for workload: u'],
  },
  {
    what: 'a name without addresses is refused with the reason',
    mesh: { services: [web()], workloads: [named('gone.example.com')] },
    target: '10.96.0.1:80',
    plan: ['unresolved-hostname: no ip addresses were resolved for workload: u (gone.example.com: ENOTFOUND)'],
  },
];

/** Network n2 lies behind a gateway: a workload with a service of its own, which also accepts another name. */
const gatewayService = service('gw', {
  vips: ['/10.96.0.15'],
  ports: { 15008: 15009 },
  subjectAltNames: [id('east-west')],
});
const gateway = workload('gw', { workloadIps: ['10.0.0.15'], services: { [key('gw')]: {} } });
const remote = (name: string, fields: Parameters<typeof workload>[1] = {}) =>
  member(name, '10.0.0.2', { network: 'n2', networkGateway: byAddress('10.0.0.15'), ...fields });
const hostname = 'web.default.svc.cluster.local';

const otherNetworks: readonly Row[] = [
  {
    what: 'an endpoint of another network is reached by double HBONE through its gateway, by address',
    mesh: { services: [web({ subjectAltNames: [id('z'), id('y')] })], workloads: [remote('a'), gateway] },
    target: '10.96.0.1:80',
    plan: [`hbone 10.0.0.15 15008 for ${hostname}:80 @gw inner @y @z from "n1" to a of web`],
  },
  {
    what: "a gateway by the hostname of a service is dialled on the mapped port, and accepts that service's names",
    mesh: {
      services: [web({ subjectAltNames: [id('z')] }), gatewayService],
      workloads: [remote('a', { networkGateway: byHostname('gw.default.svc.cluster.local') }), gateway],
    },
    target: '10.96.0.1:80',
    plan: [`hbone 10.0.0.15 15009 for ${hostname}:80 @east-west @gw inner @z from "n1" to a of web`],
  },
  {
    what: 'a service without alternative names expects the identity of the entry at the end of the inner tunnel',
    mesh: { services: [web()], workloads: [remote('a'), gateway] },
    target: '10.96.0.1:80',
    plan: [`hbone 10.0.0.15 15008 for ${hostname}:80 @gw inner @a from "n1" to a of web`],
  },
  {
    what: 'an endpoint without addresses is reached through its gateway',
    mesh: { services: [web()], workloads: [remote('a', { workloadIps: [] }), gateway] },
    target: '10.96.0.1:80',
    plan: [`hbone 10.0.0.15 15008 for ${hostname}:80 @gw inner @a from "n1" to a of web`],
  },
  {
    what: 'the share of an endpoint is spread over the instances of its gateway',
    mesh: {
      services: [web(), gatewayService],
      workloads: [
        remote('a', { networkGateway: byAddress('10.96.0.15'), capacity: 6 }),
        gateway,
        workload('gw2', { workloadIps: ['10.0.0.16'], services: { [key('gw')]: {} }, capacity: 2 }),
        member('near', '10.0.0.3', { network: 'n1' }),
      ],
    },
    target: '10.96.0.1:80',
    plan: [
      `hbone 10.0.0.15 15009 for ${hostname}:80 @east-west @gw inner @a from "n1" ×2 to a of web`,
      `hbone 10.0.0.16 15009 for ${hostname}:80 @east-west @gw2 inner @a from "n1" ×4 to a of web`,
      'hbone 10.0.0.3 15008 for 10.0.0.3:8080 @near to near of web',
    ],
  },
  {
    what: 'a gateway that is not known is named',
    mesh: { services: [web()], workloads: [remote('a', { networkGateway: byHostname('gw.example.com') })] },
    target: '10.96.0.1:80',
    plan: ['unknown-gateway: network gateway gw.example.com not found'],
  },
  {
    what: 'a gateway whose service does not list the port is as good as unknown, whatever tunnel its workload has',
    mesh: {
      services: [web(), { ...gatewayService, ports: {} }],
      workloads: [
        remote('a', { networkGateway: byAddress('10.96.0.15') }),
        workload('gw', {
          workloadIps: ['10.0.0.15'],
          services: { [key('gw')]: {} },
          applicationTunnel: { protocol: 'PROXY', port: 15088 },
        }),
      ],
    },
    target: '10.96.0.1:80',
    plan: ['unknown-gateway: network gateway 10.96.0.15 not found: no endpoint of it takes port 15008'],
  },
  {
    what: "a service's waypoint on another network is reached through that network's gateway, by the service's name",
    mesh: {
      services: [web({ waypoint: byAddress('10.0.0.9', 15008, 'n2') })],
      workloads: [
        workload('wp', { workloadIps: ['10.0.0.9'], network: 'n2', networkGateway: byAddress('10.0.0.15') }),
        gateway,
      ],
    },
    target: '10.96.0.1:80',
    plan: [`hbone 10.0.0.15 15008 for ${hostname}:80 @gw inner @wp from "n1" to wp of web`],
  },
];

/** The client is itself the waypoint: it has the address and the identity of one behind the reference. */
const selfByAddress = byAddress(CLIENT_IP);
const fromWaypoint: readonly Row[] = [
  {
    what: 'the waypoint of a workload reaches the workload itself',
    mesh: { workloads: [workload('server', { workloadIps: ['10.0.0.2'], waypoint: selfByAddress })] },
    target: '10.0.0.2:8080',
    plan: ['hbone 10.0.0.2 15008 for 10.0.0.2:8080 @server to server'],
  },
  {
    what: 'an instance of the waypoint service of a workload reaches the workload itself',
    mesh: {
      services: [waypointService],
      workloads: [
        workload('server', { workloadIps: ['10.0.0.2'], waypoint: byAddress('10.96.0.9') }),
        waypoint,
        workload('client', { workloadIps: [CLIENT_IP], services: { [key('wp')]: {} } }),
      ],
    },
    target: '10.0.0.2:8080',
    plan: ['hbone 10.0.0.2 15008 for 10.0.0.2:8080 @server to server'],
  },
  {
    what: "a connection from another address with the waypoint's identity goes through the waypoint",
    mesh: { workloads: [workload('server', { workloadIps: ['10.0.0.2'], waypoint: selfByAddress })] },
    target: '10.0.0.2:8080',
    peerIp: '192.0.2.99',
    plan: ['hbone 10.0.0.1 15008 for 10.0.0.2:8080 @client to client'],
  },
  {
    what: "a connection from the waypoint's address with another identity goes through the waypoint",
    mesh: {
      workloads: [
        workload('server', { workloadIps: ['10.0.0.2'], waypoint: byHostname('wp.example.com') }),
        workload('wp', { workloadIps: [CLIENT_IP], hostname: 'wp.example.com' }),
      ],
    },
    target: '10.0.0.2:8080',
    plan: ['hbone 10.0.0.1 15008 for 10.0.0.2:8080 @wp to wp'],
  },
  {
    what: 'the waypoint of a service reaches its endpoints and does not loop',
    mesh: { services: [web({ waypoint: selfByAddress })], workloads: [member('a', '10.0.0.2')] },
    target: '10.96.0.1:80',
    plan: ['hbone 10.0.0.2 15008 for 10.0.0.2:8080 @a to a of web'],
  },
  {
    what: 'one of the weighted waypoints of a service reaches its endpoints',
    mesh: {
      services: [
        web({
          weightedWaypoints: [
            { destination: wpByAddress, weight: 1 },
            { destination: selfByAddress, weight: 1 },
          ],
        }),
      ],
      workloads: [member('a', '10.0.0.2'), waypoint],
    },
    target: '10.96.0.1:80',
    plan: ['hbone 10.0.0.2 15008 for 10.0.0.2:8080 @a to a of web'],
  },
];

for (const [area, rows] of Object.entries({ direct, services, unreachable, names, waypoints, fromWaypoint })) {
  for (const { what, mesh, target, plan, peerIp } of rows) {
    test(`${area}: ${what}`, () => {
      const state = meshOf({ workloads: [client] }, mesh);
      const made = planOutbound(state, pod('client'), parseSocketAddress(target)!, '', peerIp ?? CLIENT_IP, resolved);
      assert.deepEqual(summary(made), plan);
      assert.deepEqual(structuredClone(made), made);
    });
  }
}

const toNetwork1 = (mesh: MeshUpdate): MeshUpdate => ({
  // Everything of the rows that names no network is on n1.
  ...mesh,
  workloads: [...(mesh.workloads ?? [])].map(({ workload: each, services: ports }) => ({
    workload: {
      ...each,
      network: each.network || 'n1',
      networkGateway: each.networkGateway && on1(each.networkGateway),
    },
    services: ports,
  })),
  services: [...(mesh.services ?? [])].map((each) => ({ ...each, vips: each.vips.map((vip) => `n1${vip}`) })),
});
const on1 = (given: GatewayAddress): GatewayAddress =>
  given.destination.kind === 'address' ? { ...given, destination: { ...given.destination, network: 'n1' } } : given;

for (const { what, mesh, target, plan } of otherNetworks) {
  test(`other networks: ${what}`, () => {
    const state = meshOf(toNetwork1({ workloads: [client] }), toNetwork1(mesh));
    const made = planOutbound(state, pod('client'), parseSocketAddress(target)!, 'n1', CLIENT_IP);
    assert.deepEqual(summary(made), plan);
  });
}

test('a pod that is not in the mesh state is refused by name', () => {
  const plan = planOutbound(meshOf(), pod('client', 'ns', 'sa'), { ip: '10.0.0.2', port: 80 }, '', CLIENT_IP);
  assert.deepEqual(summary(plan), [
    'unknown-local-workload: failed to fetch information about local workload: sa.ns (client)',
  ]);
});

test('a plan carries what telemetry and baggage need of source, destination and service', () => {
  const state = meshOf({
    workloads: [client, member('a', '10.0.0.2', { locality: { region: 'r', zone: 'z' } })],
    services: [web()],
  });
  const plan = planOutbound(state, pod('client'), { ip: '10.96.0.1', port: 80 }, '', CLIENT_IP);
  assert.ok(plan.kind === 'forward');
  assert.equal(plan.source.identity, id('client'));
  assert.deepEqual(plan.service, { hostname: 'web.default.svc.cluster.local', name: 'web', namespace: 'default' });
  assert.deepEqual(new EndpointSet(plan.groups).at(0).destination, {
    uid: 'Kubernetes//Pod/default/a',
    name: 'a',
    workloadName: 'a',
    workloadType: 'deployment',
    namespace: 'default',
    canonicalName: 'a',
    canonicalRevision: 'v1',
    clusterId: 'Kubernetes',
    region: 'r',
    zone: 'z',
    identity: id('a'),
  });
});

test('an endpoint on another network than the client, addressed without a service, has no service to go by', () => {
  // The configured network is where the address is looked up; the client's own is what it is compared with.
  const state = meshOf({
    workloads: [client, workload('far', { workloadIps: ['10.0.0.2'], network: 'n2', services: { [key('x')]: {} } })],
    services: [service('x', { vips: ['/10.0.0.2'] })],
  });
  const plan = planOutbound(state, pod('client'), { ip: '10.0.0.2', port: 80 }, 'n2', CLIENT_IP);
  assert.deepEqual(summary(plan), ['no-service-for-target: no service for target address: 10.0.0.2:80']);
});
