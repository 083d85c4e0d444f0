import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { cidrContains, parseCidr, parseIp } from '../../src/netns/address.ts';
import type { MeshStore, MeshUpdate, WorkloadUpdate } from '../../src/state/mesh-state.ts';
import { type ServiceDefinition, serviceKey } from '../../src/state/types.ts';
import { meshOf, service, workload } from './mesh-builder.ts';

/** A small world, so that edits meet each other. */
const names = fc.constantFrom('a', 'b', 'c');
const ips = fc.constantFrom('10.0.0.1', '10.0.0.2', '10.1.0.1');
const services = fc.constantFrom('default/h1', 'default/h2', 'other/h1');

const anyWorkload: fc.Arbitrary<WorkloadUpdate> = fc
  .record({
    name: names,
    ips: fc.array(ips, { maxLength: 2 }),
    healthy: fc.boolean(),
    pod: fc.boolean(),
    hostNetwork: fc.boolean(),
    services: fc.dictionary(services, fc.constantFrom({ 80: 80 }, { 80: 81 })),
  })
  .map((given) =>
    workload(given.name, {
      uid: given.name,
      workloadIps: given.ips,
      status: given.healthy ? 'Healthy' : 'Unhealthy',
      protocol: given.pod ? 'HBONE' : 'TCP',
      networkMode: given.hostNetwork ? 'HostNetwork' : 'Standard',
      services: given.services,
    }),
  );

const anyService: fc.Arbitrary<ServiceDefinition> = fc
  .record({
    key: services,
    vips: fc.array(ips, { maxLength: 2 }),
    cidrs: fc.array(fc.constantFrom('10.0.0.0/16', '10.0.0.0/24', '10.0.0.0/8'), { maxLength: 2 }),
    canonical: fc.boolean(),
    isPrivate: fc.boolean(),
    takesAll: fc.boolean(),
  })
  .map(({ key, ...given }) => {
    const [namespace, hostname] = key.split('/') as [string, string];
    return service('s', {
      namespace,
      hostname,
      vips: given.vips.map((ip) => `/${ip}`),
      cidrVips: given.cidrs.map((cidr) => ({ network: '', cidr })),
      canonical: given.canonical,
      visibility: given.isPrivate ? 'Namespace' : 'Public',
      loadBalancer: given.takesAll ? { mode: 'Standard', routingPreferences: [], healthPolicy: 'AllowAll' } : null,
    });
  });

const anyUpdate: fc.Arbitrary<MeshUpdate> = fc.record(
  {
    workloads: fc.array(anyWorkload, { maxLength: 2 }),
    services: fc.array(anyService, { maxLength: 2 }),
    removedWorkloads: fc.array(names, { maxLength: 1 }),
    removedServices: fc.array(services, { maxLength: 1 }),
  },
  { requiredKeys: [] },
);

/** What the edits amount to, kept as plainly as can be. */
class Model {
  readonly workloads = new Map<string, WorkloadUpdate>();
  readonly services = new Map<string, ServiceDefinition>();

  apply(update: MeshUpdate): void {
    for (const each of update.services ?? []) this.services.set(serviceKey(each), each);
    for (const each of update.workloads ?? []) this.workloads.set(each.workload.uid, each);
    for (const uid of update.removedWorkloads ?? []) this.workloads.delete(uid);
    for (const key of update.removedServices ?? []) this.services.delete(key);
  }

  endpointsOf(key: string, takesAll: boolean): string[] {
    return [...this.workloads.values()]
      .filter((each) => Object.hasOwn(each.services, key) && (takesAll || each.workload.status === 'Healthy'))
      .map((each) => `${each.workload.uid} ${JSON.stringify(each.services[key])}`)
      .sort();
  }
}

function check(mesh: MeshStore, model: Model): void {
  for (const key of ['default/h1', 'default/h2', 'other/h1']) {
    const definition = model.services.get(key);
    const found = definition === undefined ? mesh.stagedEndpoints().get(key) : mesh.service(key)!.endpoints;
    const takesAll = definition === undefined || definition.loadBalancer !== null;
    const said = [...(found?.values() ?? [])].map(({ workloadUid, port }) => `${workloadUid} ${JSON.stringify(port)}`);
    assert.deepEqual(said.sort(), model.endpointsOf(key, takesAll), `endpoints of ${key}`);
  }
  for (const ip of ['10.0.0.1', '10.0.0.2', '10.1.0.1']) {
    checkOwner(mesh, model, ip);
    for (const namespace of ['default', 'other', 'third']) checkVip(mesh, model, ip, namespace);
  }
}

function checkOwner(mesh: MeshStore, model: Model, ip: string): void {
  const owners = [...model.workloads.values()].filter(
    ({ workload: { workloadIps, networkMode } }) => workloadIps.includes(ip) && networkMode === 'Standard',
  );
  const found = mesh.workloadByAddress('', ip);
  if (owners.length === 0) assert.equal(found, null);
  else {
    const hasHbone = owners.some((owner) => owner.workload.protocol === 'HBONE');
    assert.ok(owners.some((owner) => owner.workload.uid === found?.uid));
    assert.equal(found?.protocol === 'HBONE', hasHbone, `owner of ${ip}`);
  }
}

function checkVip(mesh: MeshStore, model: Model, ip: string, namespace: string): void {
  const visible = [...model.services.values()].filter(
    (each) => each.visibility === 'Public' || each.namespace === namespace,
  );
  const exact = visible.filter(({ vips }) => vips.includes(`/${ip}`));
  const lengths = (each: ServiceDefinition) =>
    each.cidrVips.map(({ cidr }) => parseCidr(cidr)!).filter((cidr) => cidrContains(cidr, parseIp(ip)!));
  const inBlock = visible.filter((each) => lengths(each).length > 0);
  const rankOf = (each: ServiceDefinition) => {
    const longest = exact.length > 0 ? 0 : Math.max(...lengths(each).map(({ length }) => length));
    return (each.namespace === namespace ? 1000 : 0) + longest * 2 + (each.canonical ? 1 : 0);
  };
  const candidates = exact.length > 0 ? exact : inBlock;
  const found = mesh.serviceByVip('', ip, namespace);
  assert.equal(found === null, candidates.length === 0, `service of ${ip} from ${namespace}`);
  if (found !== null) assert.equal(rankOf(found), Math.max(...candidates.map(rankOf)));
}

test('after any sequence of edits every look-up tells what the edits amount to', () => {
  fc.assert(
    fc.property(fc.array(anyUpdate, { maxLength: 12 }), (updates) => {
      const mesh = meshOf();
      const model = new Model();
      for (const update of updates) {
        mesh.apply(update);
        model.apply(update);
        check(mesh, model);
      }
    }),
    { numRuns: 300 },
  );
});
