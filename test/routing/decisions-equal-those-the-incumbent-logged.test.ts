import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatSocketAddress, parseSocketAddress } from '../../src/netns/address.ts';
import { compilePolicies } from '../../src/policy/compile.ts';
import { evaluate } from '../../src/policy/evaluate.ts';
import { EndpointSet } from '../../src/routing/endpoint-set.ts';
import { planInboundHbone, planInboundPlaintext } from '../../src/routing/inbound.ts';
import { planOutbound } from '../../src/routing/outbound.ts';
import { loadLocal } from '../../src/state/local-file.ts';
import { createMeshState } from '../../src/state/store.ts';
import { identityOf } from '../../src/state/types.ts';
import { capturedAsLocalFile, readCapturedMesh } from '../state/captured-mesh.ts';
import { pod } from '../state/mesh-builder.ts';

/** The incumbent's own mesh; what follows is what its access log says of connections in it. */
const mesh = createMeshState({ localNode: 'node1' });
mesh.apply(await loadLocal(capturedAsLocalFile(readCapturedMesh()), 'captured'));
const client = pod('client', 'demo');

const outbound: readonly [target: string, endpoints: string[], service: string | null][] = [
  ['10.88.0.18:8080', ['10.88.0.18:15008 for 10.88.0.18:8080'], null],
  ['10.96.42.133:80', ['10.88.0.18:15008 for 10.88.0.18:8080'], 'server.demo.svc.cluster.local'],
  ['10.99.1.9:80', ['10.88.0.18:15008 for 10.88.0.18:8080'], 'ext.example.com'],
  [
    '10.96.232.247:80',
    ['10.88.0.21:15008 for 10.88.0.21:8080', '10.88.0.20:15008 for 10.88.0.20:8080'],
    'echo.demo.svc.cluster.local',
  ],
  ['10.88.0.23:80', ['10.88.0.23:80'], null],
];

for (const [target, endpoints, service] of outbound) {
  test(`the client's connection to ${target} goes to ${endpoints.join(' or ')}`, () => {
    const plan = planOutbound(mesh, client, parseSocketAddress(target)!, '', '10.88.0.19');
    assert.ok(plan.kind === 'forward');
    const said = [...new EndpointSet(plan.groups)].map(({ address, authority }) =>
      authority === '' ? formatSocketAddress(address) : `${formatSocketAddress(address)} for ${authority}`,
    );
    assert.deepEqual(said, endpoints);
    assert.equal(plan.service?.hostname ?? null, service);
  });
}

test('a service that is only a name is refused with the error the incumbent logs', () => {
  const plan = planOutbound(mesh, client, { ip: '10.99.0.8', port: 443 }, '', '10.88.0.19');
  assert.ok(plan.kind === 'reject');
  const uid = 'Kubernetes/networking.istio.io/ServiceEntry/demo/dns/dns.example.com';
  assert.ok(plan.reason.message.startsWith(`no ip addresses were resolved for workload: ${uid}`));
});

interface Inbound {
  readonly from: string;
  readonly mtls: boolean;
  readonly to: string;
  readonly service: string | null;
  readonly rejection: string | null;
}

const inbound: readonly Inbound[] = [
  { from: 'client', mtls: true, to: 'server', service: 'server.demo.svc.cluster.local', rejection: null },
  {
    from: 'other',
    mtls: true,
    to: 'server',
    service: 'server.demo.svc.cluster.local',
    rejection: 'allow policies exist, but none allowed',
  },
  {
    from: 'outside',
    mtls: false,
    to: 'server',
    service: 'server.demo.svc.cluster.local',
    rejection: 'explicitly denied by: demo/deny-ns',
  },
  {
    from: 'outside',
    mtls: false,
    to: 'echo-7d596bdf78-67srx',
    service: 'echo-headless.demo.svc.cluster.local',
    rejection: 'explicitly denied by: demo/deny-ns',
  },
];

for (const { from, mtls, to, service, rejection } of inbound) {
  test(`${from}'s ${mtls ? 'tunnel' : 'plain connection'} to ${to}: ${rejection ?? 'delivered'}`, () => {
    const [source] = [...mesh.workloads()].filter(({ name }) => name === from);
    const [local] = [...mesh.workloads()].filter(({ name }) => name === to);
    const info = pod(to, 'demo', local!.serviceAccount);
    const peerIp = source!.workloadIps[0]!;
    const target = { ip: local!.workloadIps[0]!, port: 8080 };
    const tunnel = { localIp: target.ip, peerIp, authority: formatSocketAddress(target), forwardedHost: null };
    const plan = mtls
      ? planInboundHbone(mesh, info, { ...tunnel, fromNetwork: null }, '', new Set())
      : planInboundPlaintext(mesh, info, { peerIp, originalDestination: target }, '', new Set());
    assert.ok(plan.kind === 'deliver');
    assert.deepEqual(plan.target, target);
    assert.equal(plan.source?.name, from);
    assert.equal(plan.destination.name, to);
    assert.equal(plan.service?.hostname ?? null, service);
    const verdict = evaluate(compilePolicies(mesh, local!), {
      sourceIp: peerIp,
      sourceIdentity: mtls ? identityOf(source!) : null,
      destinationIp: target.ip,
      destinationPort: target.port,
    });
    assert.equal(verdict.kind === 'deny' ? verdict.reason : null, rejection);
  });
}
