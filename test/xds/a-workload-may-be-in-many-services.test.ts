import assert from 'node:assert/strict';
import { test } from 'node:test';
import protobuf from 'protobufjs/minimal.js';
import type { WorkloadUpdate } from '../../src/state/mesh-state.ts';
import { createMeshState } from '../../src/state/store.ts';
import { readAddress } from '../../src/xds/address.ts';
import { encode } from '../support/xds-schema.ts';
import { uid, workload } from './support/client-under-test.ts';

/** What is read of a workload with the numbers of its services, each of which has a port of that number. */
function read(name: string, numbers: readonly number[]): WorkloadUpdate {
  const services = numbers.map((number) => [keyOf(number), { ports: [{ servicePort: number, targetPort: 8080 }] }]);
  const bytes = encode('Address', workload(name, { services: Object.fromEntries(services) }));
  const resource = readAddress(protobuf.Reader.create(bytes), bytes.length);
  assert.ok('update' in resource && 'workload' in resource.update);
  return resource.update;
}

test('each of a thousand services is read, and none of them gets to a workload that shares only the first', () => {
  const numbers = Array.from({ length: 1000 }, (_, at) => at + 1);
  const expected = Object.fromEntries(numbers.map((number) => [keyOf(number), { [number]: 8080 }]));
  const first = read('alone', [1]);
  assert.deepEqual(read('many', numbers).services, expected);
  assert.deepEqual(first.services, { [keyOf(1)]: { 1: 8080 } });
  assert.deepEqual(read('alone', [1]).services, first.services);
});

test('a workload that goes from some services to others is a member of those it is in', () => {
  const mesh = createMeshState({ localNode: '' });
  const move = (numbers: readonly number[]) => {
    mesh.apply({ workloads: [read('moving', numbers)] });
    const member = [...mesh.stagedEndpoints()].filter(([, endpoints]) => endpoints.has(uid('moving')));
    assert.deepEqual(member.map(([key]) => key).sort(), numbers.map(keyOf).sort());
  };
  const upTo = (from: number, to: number) => Array.from({ length: to - from }, (_, at) => from + at);
  for (const [from, to] of [
    [1, 3],
    [2, 5],
    [2, 40],
    [20, 60],
    [20, 61],
    [20, 60],
    [58, 60],
    [1, 1],
    [5, 30],
  ] as const) {
    move(upTo(from, to));
  }
});

function keyOf(number: number): string {
  return `demo/s${number}.demo.svc.cluster.local`;
}
