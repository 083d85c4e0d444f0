import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ServiceDefinition } from '../../src/state/types.ts';
import { meshOf, service, workload } from './mesh-builder.ts';

const VIP = '10.96.0.1';
const HOST = 'shared.example.com';

interface Row {
  readonly what: string;
  readonly services: readonly ServiceDefinition[];
  readonly from: string;
  /** namespace of the service found */
  readonly found: string | null;
}

function shared(namespace: string, fields: Partial<ServiceDefinition> = {}): ServiceDefinition {
  return service('shared', { namespace, hostname: HOST, vips: [`/${VIP}`], canonical: false, ...fields });
}

const rows: readonly Row[] = [
  { what: 'the only one is found from anywhere', services: [shared('x')], from: 'y', found: 'x' },
  {
    what: 'the own namespace wins over a canonical one',
    services: [shared('x', { canonical: true }), shared('y')],
    from: 'y',
    found: 'y',
  },
  {
    what: 'the canonical one wins elsewhere',
    services: [shared('x'), shared('y', { canonical: true })],
    from: 'z',
    found: 'y',
  },
  { what: 'the first wins among equals', services: [shared('x'), shared('y')], from: 'z', found: 'x' },
  {
    what: 'one private to another namespace is not seen',
    services: [shared('x', { visibility: 'Namespace', canonical: true }), shared('y')],
    from: 'z',
    found: 'y',
  },
  {
    what: 'one private to the own namespace is seen',
    services: [shared('x', { visibility: 'Namespace' }), shared('y', { canonical: true })],
    from: 'x',
    found: 'x',
  },
  {
    what: 'nothing is found when all are private to others',
    services: [shared('x', { visibility: 'Namespace' })],
    from: 'z',
    found: null,
  },
];

for (const { what, services, from, found } of rows) {
  test(`of services that share a VIP and a hostname, ${what}`, () => {
    const mesh = meshOf({ services });
    assert.equal(mesh.serviceByVip('', VIP, from)?.namespace ?? null, found);
    assert.equal(mesh.serviceByHostname(HOST, from)?.namespace ?? null, found);
  });
}

test('a preferred namespace decides only where neither own nor canonical do', () => {
  const mesh = meshOf({ services: [shared('x'), shared('y')] });
  assert.equal(mesh.serviceByHostname(HOST, 'z', 'y')?.namespace, 'y');
  assert.equal(mesh.serviceByHostname(HOST, 'x', 'y')?.namespace, 'x');
  const withCanonical = meshOf({ services: [shared('x', { canonical: true }), shared('y')] });
  assert.equal(withCanonical.serviceByHostname(HOST, 'z', 'y')?.namespace, 'x');
});

test('a VIP belongs to its network', () => {
  const mesh = meshOf({ services: [service('a', { vips: [`n1/${VIP}`] })] });
  assert.equal(mesh.serviceByVip('n1', VIP, 'default')?.name, 'a');
  assert.equal(mesh.serviceByVip('', VIP, 'default'), null);
});

function block(cidr: string, namespace: string, fields: Partial<ServiceDefinition> = {}): ServiceDefinition {
  return service('b', { namespace, hostname: `${cidr}.${namespace}`, cidrVips: [{ network: '', cidr }], ...fields });
}

const cidrRows: readonly { what: string; services: readonly ServiceDefinition[]; found: string | null }[] = [
  { what: 'a block that holds the address', services: [block('10.96.0.0/16', 'x')], found: '10.96.0.0/16.x' },
  { what: 'no block that does not', services: [block('10.97.0.0/16', 'x')], found: null },
  {
    what: 'the longest block',
    services: [block('10.96.0.0/16', 'x'), block('10.96.0.0/24', 'x'), block('10.0.0.0/8', 'x')],
    found: '10.96.0.0/24.x',
  },
  {
    what: 'the own namespace before the longest block',
    services: [block('10.96.0.0/24', 'x'), block('10.96.0.0/16', 'client')],
    found: '10.96.0.0/16.client',
  },
  {
    what: 'the longest block before the canonical one',
    services: [block('10.96.0.0/16', 'x', { canonical: true }), block('10.96.0.0/24', 'y', { canonical: false })],
    found: '10.96.0.0/24.y',
  },
  {
    what: 'the canonical one of equal blocks',
    services: [block('10.96.0.0/16', 'x', { canonical: false }), block('10.96.0.0/16', 'y')],
    found: '10.96.0.0/16.y',
  },
  {
    what: 'only what is visible',
    services: [block('10.96.0.0/24', 'x', { visibility: 'Namespace' }), block('10.96.0.0/16', 'y')],
    found: '10.96.0.0/16.y',
  },
  {
    what: 'an exact VIP before any block',
    services: [block('10.96.0.1/32', 'client'), service('exact', { vips: [`/${VIP}`], namespace: 'x', hostname: 'e' })],
    found: 'e',
  },
  {
    what: 'a block when the exact VIP is invisible',
    services: [
      block('10.96.0.0/16', 'y'),
      service('exact', { vips: [`/${VIP}`], namespace: 'x', visibility: 'Namespace' }),
    ],
    found: '10.96.0.0/16.y',
  },
];

for (const { what, services, found } of cidrRows) {
  test(`by an address inside a block, ${what} is found`, () => {
    assert.equal(meshOf({ services }).serviceByVip('', VIP, 'client')?.hostname ?? null, found);
  });
}

test('a service whose addresses change is no longer found by the old ones', () => {
  const mesh = meshOf({ services: [block('10.96.0.0/16', 'x', { vips: ['/10.1.0.1'] })] });
  mesh.apply({ services: [{ ...block('10.96.0.0/16', 'x'), cidrVips: [], vips: ['/10.1.0.2'] }] });
  assert.equal(mesh.serviceByVip('', VIP, 'x'), null);
  assert.equal(mesh.serviceByVip('', '10.1.0.1', 'x'), null);
  assert.equal(mesh.serviceByVip('', '10.1.0.2', 'x')?.name, 'b');
});

test('a removed service is not found by anything', () => {
  const definition = block('10.96.0.0/16', 'x', { vips: ['/10.1.0.1'] });
  const mesh = meshOf({ services: [definition] }, { removedServices: [`x/${definition.hostname}`] });
  assert.equal(mesh.serviceByVip('', VIP, 'x'), null);
  assert.equal(mesh.serviceByVip('', '10.1.0.1', 'x'), null);
  assert.equal(mesh.serviceByHostname(definition.hostname, 'x'), null);
  assert.equal(mesh.service(`x/${definition.hostname}`), null);
});

test('a service found by a block shows its endpoints of now, not those of when it was sent', () => {
  const definition = block('10.96.0.0/16', 'x');
  const key = `x/${definition.hostname}`;
  const mesh = meshOf({ services: [definition] });
  for (const name of ['a', 'b']) mesh.apply({ workloads: [workload(name, { services: { [key]: { 80: 8080 } } })] });
  mesh.apply({ removedWorkloads: ['Kubernetes//Pod/default/a'] });
  const endpoints = mesh.serviceByVip('', VIP, 'x')!.endpoints;
  assert.deepEqual([...endpoints.keys()], ['Kubernetes//Pod/default/b']);
});
