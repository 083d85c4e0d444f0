import { byAddress, byHostname, workload } from '../state/mesh-builder.ts';
import {
  CLIENT_IP,
  canary,
  id,
  judge,
  key,
  member,
  type Row,
  waypoint,
  waypointService,
  web,
} from './outbound-table.ts';

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
    what: 'a waypoint that is itself behind a waypoint is gone to directly',
    mesh: {
      services: [web({ waypoint: wpByAddress })],
      workloads: [
        member('a', '10.0.0.2'),
        workload('wp', { workloadIps: ['10.0.0.9'], waypoint: byAddress('10.0.0.8') }),
        workload('canary', { workloadIps: ['10.0.0.8'], waypoint: wpByAddress }),
      ],
    },
    target: '10.96.0.1:80',
    plan: ['hbone 10.0.0.9 15008 for 10.96.0.1:80 @wp to wp of web'],
  },
  {
    what: 'a service that is its own waypoint has none, as it does not take the port',
    mesh: {
      services: [web({ waypoint: byHostname('web.default.svc.cluster.local') })],
      workloads: [member('a', '10.0.0.2')],
    },
    target: '10.96.0.1:80',
    plan: [
      'unknown-waypoint: unknown waypoint: waypoint web.default.svc.cluster.local not found: no endpoint of it takes port 15008',
    ],
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
    what: 'one of two workloads that are the waypoint of each other reaches the other itself',
    mesh: {
      workloads: [
        workload('client', { workloadIps: [CLIENT_IP], waypoint: byAddress('10.0.0.2') }),
        workload('server', { workloadIps: ['10.0.0.2'], waypoint: selfByAddress }),
      ],
    },
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

judge('waypoints', waypoints);
judge('from a waypoint', fromWaypoint);
