import assert from 'node:assert/strict';
import { test } from 'node:test';
import { meshUnderTest } from './support/mesh-under-test.ts';
import { authorizationPolicy, service, serviceEntry, waypoint } from './support/objects.ts';

type Json = Record<string, unknown>;

const USE = 'istio.io/use-waypoint';
const labelled = (labels: Json) => ({ metadata: { labels } });
const wp = (more: Json = {}) => waypoint('wp', more);
const ref = (kind: string, name: string, more: Json = {}) => ({ kind, name, ...more });

/** [name, targets, whether it is in the root namespace, condition's status, reason, part of its message] */
for (const [name, targetRefs, inRoot, status, reason, message] of [
  ['a waypoint', [ref('Gateway', 'wp')], false, 'True', 'Accepted', 'bound to demo/wp'],
  [
    'a waypoint that is not there',
    [ref('Gateway', 'x')],
    false,
    'False',
    'TargetNotFound',
    'waypoint demo/x was not found',
  ],
  ['a Service with a waypoint', [ref('Service', 'web')], false, 'True', 'Accepted', 'bound to demo/wp'],
  [
    'a Service without one',
    [ref('Service', 'plain')],
    false,
    'False',
    'AncestorNotBound',
    'Service demo/plain is not bound to a waypoint',
  ],
  [
    'a Service that is not there',
    [ref('Service', 'x')],
    false,
    'False',
    'TargetNotFound',
    'Service demo/x was not found',
  ],
  ['a ServiceEntry with a waypoint', [ref('ServiceEntry', 'ext')], false, 'True', 'Accepted', 'bound to demo/wp'],
  [
    'a ServiceEntry that is not there',
    [ref('ServiceEntry', 'x')],
    false,
    'False',
    'TargetNotFound',
    'ServiceEntry demo/x was not found',
  ],
  ['a class', [ref('GatewayClass', 'istio-waypoint')], true, 'True', 'Accepted', 'bound to istio-waypoint'],
  [
    'a class, outside of the root namespace',
    [ref('GatewayClass', 'istio-waypoint')],
    false,
    'False',
    'Invalid',
    'root namespace istio-system',
  ],
  [
    'a class of another controller',
    [ref('GatewayClass', 'other')],
    true,
    'False',
    'Invalid',
    'not of controller istio.io/mesh-controller',
  ],
  [
    'a class that is not there',
    [ref('GatewayClass', 'x')],
    true,
    'False',
    'TargetNotFound',
    'GatewayClass x was not found',
  ],
  ['something else', [ref('ConfigMap', 'x')], false, 'False', 'Invalid', 'cannot be attached to a ConfigMap'],
  [
    'some of which are there',
    [ref('Service', 'plain'), ref('Service', 'web')],
    false,
    'True',
    'PartiallyInvalid',
    'not bound to a waypoint; bound to demo/wp',
  ],
  [
    'both of which are there',
    [ref('Service', 'web'), ref('Gateway', 'wp')],
    false,
    'True',
    'Accepted',
    'bound to demo/wp; bound to demo/wp',
  ],
] as [string, Json[], boolean, string, string, string][]) {
  test(`a policy that is attached to ${name}`, async () => {
    const controllers = { 'istio-waypoint': 'istio.io/mesh-controller', other: 'example.com/other' };
    const objects = [
      ...Object.entries(controllers).map(([name, controllerName]) => ({
        kind: 'GatewayClass',
        metadata: { name },
        spec: { controllerName },
      })),
      wp(),
      service('web', labelled({ [USE]: 'wp' })),
      service('plain'),
      serviceEntry('ext', { ...labelled({ [USE]: 'wp' }), spec: { addresses: ['10.0.0.1'] } }),
      authorizationPolicy('p', { targetRefs, rules: [{}] }, inRoot ? { namespace: 'istio-system' } : {}),
    ];
    for (const order of [objects, objects.toReversed()]) {
      const { mesh, put, rejected, policy } = meshUnderTest();
      for (const object of order) await put(object);
      assert.deepEqual(rejected, []);
      const key = inRoot ? 'istio-system/p' : 'demo/p';
      assert.equal(policy(key), null, 'it is not for agents of nodes');
      const updates = [...mesh.statuses.conditions()].filter(({ kind }) => kind.kind === 'AuthorizationPolicy');
      const [update] = updates;
      assert.deepEqual([updates.length, update?.key, update?.fieldManager], [1, key, 'istio-ambient-waypoint-policy']);
      const [condition] = update!.conditions;
      assert.deepEqual([condition?.type, condition?.status, condition?.reason], ['WaypointAccepted', status, reason]);
      assert.ok(condition!.message.includes(message), condition!.message);
    }
  });
}
