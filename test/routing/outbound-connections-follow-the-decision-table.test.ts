import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EndpointSet } from '../../src/routing/endpoint-set.ts';
import type { ResolvedNames } from '../../src/routing/names.ts';
import { planOutbound } from '../../src/routing/outbound.ts';
import { byHostname, meshOf, pod, workload } from '../state/mesh-builder.ts';
import { CLIENT_IP, client, id, judge, key, member, plain, type Row, server, summary, web } from './outbound-table.ts';

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
    what: 'of a workload with several addresses the one asked for is dialled',
    mesh: { workloads: [workload('many', { workloadIps: ['10.0.0.6', '10.0.0.7', '10.0.0.8'] })] },
    target: '10.0.0.7:8080',
    plan: ['hbone 10.0.0.7 15008 for 10.0.0.7:8080 @many to many'],
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
    what: 'a service without ports has no upstream, whatever its endpoints map',
    mesh: {
      services: [web({ ports: {} })],
      workloads: [member('a', '10.0.0.2', { services: { [key('web')]: { 80: 80 } } })],
    },
    target: '10.96.0.1:80',
    plan: ['no-healthy-upstream: no healthy upstream: 10.96.0.1:80'],
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

judge('direct', direct);
judge('services', services);
judge('unreachable', unreachable);
judge('names', names, resolved);

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
