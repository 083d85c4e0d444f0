import assert from 'node:assert/strict';
import { test } from 'node:test';
import { loadBalance, localityRank } from '../../src/routing/load-balance.ts';
import type { LoadBalancer, RoutingScope, Workload } from '../../src/state/types.ts';
import { byAddress, meshOf, service, workload } from '../state/mesh-builder.ts';

const KEY = 'default/web.default.svc.cluster.local';
const HERE = {
  network: 'n1',
  node: 'node-1',
  clusterId: 'c1',
  locality: { region: 'r1', zone: 'z1', subzone: 's1' },
} as const;
const source = workload('client', { workloadIps: ['10.0.0.1'], ...HERE }).workload as Workload;

type Place = Partial<{
  network: string;
  region: string;
  zone: string;
  subzone: string;
  node: string;
  clusterId: string;
}>;

function at({ region = 'r1', zone = 'z1', subzone = 's1', ...rest }: Place) {
  return { ...HERE, ...rest, locality: { region, zone, subzone } };
}

const ranks: readonly [scopes: RoutingScope[], place: Place, rank: number][] = [
  [['Network', 'Region', 'Zone'], {}, 5],
  [['Network', 'Region', 'Zone'], { zone: 'x' }, 4],
  [['Network', 'Region', 'Zone'], { region: 'x' }, 3],
  [['Network', 'Region', 'Zone'], { network: 'x' }, 2],
  [['Network', 'Region', 'Zone'], { network: 'x', zone: 'x' }, 1],
  [['Network', 'Region', 'Zone'], { network: 'x', region: 'x' }, 0],
  [['Region', 'Zone', 'Subzone'], {}, 3],
  [['Region', 'Zone', 'Subzone'], { subzone: 'x' }, 2],
  [['Region', 'Zone', 'Subzone'], { zone: 'x' }, 1],
  [['Region', 'Zone', 'Subzone'], { region: 'x' }, 0],
  [['Region', 'Network', 'Zone'], { network: 'x' }, 1],
  [['Node'], {}, 1],
  [['Node'], { node: 'x' }, 0],
  [['Cluster', 'Node'], { clusterId: 'x' }, 0],
  [['Cluster', 'Node'], { node: 'x' }, 1],
  [['Network'], {}, 1],
  [[], {}, 0],
];

for (const [scopes, place, rank] of ranks) {
  test(`by ${scopes.join(', ') || 'nothing'} a workload at ${JSON.stringify(place)} ranks ${rank}`, () => {
    assert.equal(localityRank(workload('w', at(place)).workload as Workload, source, scopes), rank);
  });
}

test('places that say nothing are equal', () => {
  const nowhere = workload('w').workload as Workload;
  assert.equal(localityRank(nowhere, workload('v').workload as Workload, ['Region', 'Zone', 'Subzone']), 3);
});

interface Row {
  readonly what: string;
  readonly mode: LoadBalancer['mode'];
  readonly scopes: readonly RoutingScope[];
  readonly endpoints: Readonly<Record<string, Place & { capacity?: number; ports?: Record<number, number> }>>;
  readonly chosen: readonly string[];
}

const byZone = ['Network', 'Region', 'Zone'] as const;
const rows: readonly Row[] = [
  {
    what: 'standard takes all, whatever the preferences',
    mode: 'Standard',
    scopes: byZone,
    endpoints: { near: {}, far: { region: 'x' } },
    chosen: ['near', 'far'],
  },
  {
    what: 'failover takes the nearest only',
    mode: 'Failover',
    scopes: byZone,
    endpoints: { region: { zone: 'x' }, a: {}, b: {}, far: { region: 'x' } },
    chosen: ['a', 'b'],
  },
  {
    what: 'failover takes the far ones when there is nothing nearer',
    mode: 'Failover',
    scopes: byZone,
    endpoints: { far: { region: 'x' }, farther: { region: 'y' } },
    chosen: ['far', 'farther'],
  },
  {
    what: 'failover prefers the own network however far',
    mode: 'Failover',
    scopes: byZone,
    endpoints: { own: { region: 'x' }, foreign: { network: 'x' } },
    chosen: ['own'],
  },
  {
    what: 'failover beyond the network still prefers the nearer one',
    mode: 'Failover',
    scopes: byZone,
    endpoints: { far: { network: 'x', region: 'x' }, near: { network: 'x' } },
    chosen: ['near'],
  },
  {
    what: 'failover passes over a near endpoint of weight 0',
    mode: 'Failover',
    scopes: byZone,
    endpoints: { near: { capacity: 0 }, far: { region: 'x' } },
    chosen: ['far'],
  },
  {
    what: 'failover without preferences takes all',
    mode: 'Failover',
    scopes: [],
    endpoints: { near: {}, far: { region: 'x' } },
    chosen: ['near', 'far'],
  },
  {
    what: 'strict takes full matches only',
    mode: 'Strict',
    scopes: byZone,
    endpoints: { near: {}, zone: { zone: 'x' }, foreign: { network: 'x' } },
    chosen: ['near'],
  },
  {
    what: 'strict takes none rather than a partial match',
    mode: 'Strict',
    scopes: ['Node'],
    endpoints: { other: { node: 'x' } },
    chosen: [],
  },
  {
    what: 'strict by the network alone keeps traffic on it',
    mode: 'Strict',
    scopes: ['Network'],
    endpoints: { here: { region: 'x' }, there: { network: 'x' } },
    chosen: ['here'],
  },
];

for (const { what, mode, scopes, endpoints, chosen } of rows) {
  test(`of the endpoints of a service, ${what}`, () => {
    const mesh = meshOf({
      services: [service('web', { loadBalancer: { mode, routingPreferences: scopes, healthPolicy: 'OnlyHealthy' } })],
      workloads: Object.entries(endpoints).map(([name, { capacity = 1, ...place }], index) =>
        workload(name, { workloadIps: [`10.1.0.${index}`], services: { [KEY]: {} }, capacity, ...at(place) }),
      ),
    });
    const upstreams = loadBalance(mesh, source, mesh.service(KEY)!, 80, 'standard');
    assert.deepEqual(
      upstreams.map((upstream) => upstream.workload.name),
      chosen,
    );
  });
}

test('a workload without addresses is a candidate only on another network that has a gateway', () => {
  const gateway = byAddress('192.0.2.1');
  const mesh = meshOf({
    services: [service('web')],
    workloads: [
      workload('nothing', { ...HERE, services: { [KEY]: {} } }),
      workload('own', { ...HERE, networkGateway: gateway, services: { [KEY]: {} } }),
      workload('foreign', { ...HERE, network: 'n2', services: { [KEY]: {} } }),
      workload('gateway', { ...HERE, network: 'n2', networkGateway: gateway, services: { [KEY]: {} } }),
      workload('named', { ...HERE, hostname: 'named.example.com', services: { [KEY]: {} } }),
    ],
  });
  const upstreams = loadBalance(mesh, source, mesh.service(KEY)!, 80, 'standard');
  assert.deepEqual(
    upstreams.map((upstream) => upstream.workload.name),
    ['gateway', 'named'],
  );
});
