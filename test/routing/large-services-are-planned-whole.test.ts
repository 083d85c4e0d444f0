import assert from 'node:assert/strict';
import { test } from 'node:test';
import { endpointsOf } from '../../src/routing/endpoint-set.ts';
import { planOutbound } from '../../src/routing/outbound.ts';
import { meshOf, pod, service, workload } from '../state/mesh-builder.ts';

const KEY = 'default/web.default.svc.cluster.local';

for (const count of [1, 32, 33, 500]) {
  test(`a plan of ${count} endpoints says of each who and where it is, also after it has crossed threads`, () => {
    const members = Array.from({ length: count }, (_, index) => {
      const ip = `10.1.${index >> 8}.${index & 255}`;
      const addresses = index % 10 === 3 ? [`2001:db8::${(index + 1).toString(16)}`] : [ip];
      return workload(`pöd-${index}`, {
        workloadIps: index % 10 === 7 ? [...addresses, '2001:db8:1::1'] : addresses,
        services: { [KEY]: {} },
        ...(index % 10 === 5 ? { uid: `Kubernetes/networking.istio.io/WorkloadEntry/default/other-${index}` } : {}),
        // All of one deployment.
        serviceAccount: 'web',
        workloadName: 'web',
        canonicalName: 'web',
      });
    });
    const client = workload('client', { workloadIps: ['10.0.0.1'] });
    const mesh = meshOf({ services: [service('web', { vips: ['/10.96.0.1'] })], workloads: [client, ...members] });
    const plan = planOutbound(mesh, pod('client'), { ip: '10.96.0.1', port: 80 }, '', '10.0.0.1');
    const sent = structuredClone(plan);
    assert.ok(sent.kind === 'forward');
    const said = [...endpointsOf(sent)].map(({ uid, address, authority, destination }) =>
      [uid, destination?.name, address.ip, authority].join(' '),
    );
    const expected = members.map(({ workload: { uid, name, workloadIps } }) => {
      const ip = workloadIps[0]!;
      return [uid, name, ip, ip.includes(':') ? `[${ip}]:8080` : `${ip}:8080`].join(' ');
    });
    assert.deepEqual(said.sort(), expected.sort());
  });
}
