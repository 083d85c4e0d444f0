/** Rows of what is in the mesh, where the client wants to go, and the plan that comes of it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseSocketAddress } from '../../src/netns/address.ts';
import { EndpointSet } from '../../src/routing/endpoint-set.ts';
import type { ResolvedNames } from '../../src/routing/names.ts';
import { planOutbound } from '../../src/routing/outbound.ts';
import type { OutboundPlan } from '../../src/routing/plan.ts';
import type { MeshUpdate } from '../../src/state/mesh-state.ts';
import { meshOf, pod, service, workload } from '../state/mesh-builder.ts';

export const CLIENT_IP = '10.0.0.1';
export const client = workload('client', { workloadIps: [CLIENT_IP, '2001:db8::1'] });
export const id = (name: string) => `spiffe://cluster.local/ns/default/sa/${name}`;
export const key = (name: string) => `default/${name}.default.svc.cluster.local`;

const short = (identity: string) => identity.replace('spiffe://cluster.local/ns/default/sa/', '@');

/** A plan in one line per endpoint: how, where, authority, identities, share, service. */
export function summary(plan: OutboundPlan): string[] {
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

export interface Row {
  readonly what: string;
  readonly mesh: MeshUpdate;
  readonly target: string;
  readonly plan: readonly string[];
  readonly peerIp?: string;
}

export const server = workload('server', { workloadIps: ['10.0.0.2'] });
export const plain = workload('plain', { workloadIps: ['10.0.0.3'], protocol: 'TCP' });
export const member = (name: string, ip: string, fields: Parameters<typeof workload>[1] = {}) =>
  workload(name, { workloadIps: [ip], services: { [key('web')]: {} }, ...fields });
export const web = (fields: Parameters<typeof service>[1] = {}) => service('web', { vips: ['/10.96.0.1'], ...fields });

/** A waypoint with a service of its own, reachable by VIP and by hostname. */
export const waypoint = workload('wp', { workloadIps: ['10.0.0.9'], services: { [key('wp')]: {} } });
export const waypointService = service('wp', { vips: ['/10.96.0.9'], ports: { 15008: 15008 } });
export const canary = workload('canary', { workloadIps: ['10.0.0.8'] });

/** A test for each row: its plan, as the summary has it, is plain data. */
export function judge(area: string, rows: readonly Row[], resolved?: ResolvedNames): void {
  for (const { what, mesh, target, plan, peerIp } of rows) {
    test(`${area}: ${what}`, () => {
      const state = meshOf({ workloads: [client] }, mesh);
      const made = planOutbound(state, pod('client'), parseSocketAddress(target)!, '', peerIp ?? CLIENT_IP, resolved);
      assert.deepEqual(summary(made), plan);
      assert.deepEqual(structuredClone(made), made);
    });
  }
}
