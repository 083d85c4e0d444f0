import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseSocketAddress } from '../../src/netns/address.ts';
import { planOutbound } from '../../src/routing/outbound.ts';
import type { MeshUpdate } from '../../src/state/mesh-state.ts';
import type { GatewayAddress } from '../../src/state/types.ts';
import { byAddress, byHostname, meshOf, pod, service, workload } from '../state/mesh-builder.ts';
import { CLIENT_IP, client, id, key, member, type Row, summary, web } from './outbound-table.ts';

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

test('an endpoint on another network than the client, addressed without a service, has no service to go by', () => {
  // The configured network is where the address is looked up; the client's own is what it is compared with.
  const state = meshOf({
    workloads: [client, workload('far', { workloadIps: ['10.0.0.2'], network: 'n2', services: { [key('x')]: {} } })],
    services: [service('x', { vips: ['/10.0.0.2'] })],
  });
  const plan = planOutbound(state, pod('client'), { ip: '10.0.0.2', port: 80 }, 'n2', CLIENT_IP);
  assert.deepEqual(summary(plan), ['no-service-for-target: no service for target address: 10.0.0.2:80']);
});
