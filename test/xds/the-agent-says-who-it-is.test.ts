import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nodeOf } from '../../src/xds/node.ts';
import { load } from '../config/load.ts';

test('the node is named and described as istiod expects it of a node proxy', async () => {
  const config = await load({
    POD_NAME: 'ztunnel-x',
    POD_NAMESPACE: 'istio-system',
    INSTANCE_IP: '10.0.0.9',
    NODE_NAME: 'node-a',
    CLUSTER_ID: 'east',
    PROXY_CONFIG: 'proxyMetadata: {ISTIO_META_TEAM: mesh, PLAIN: yes-too}',
    ISTIO_META_DNS_CAPTURE: 'true',
    ISTIO_METAJSON_LABELS: '{"app":"ztunnel","n":1}',
  });
  assert.deepEqual(nodeOf(config), {
    id: 'ztunnel~10.0.0.9~ztunnel-x.istio-system~istio-system.svc.cluster.local',
    metadata: {
      NAME: 'ztunnel-x',
      NAMESPACE: 'istio-system',
      INSTANCE_IPS: '10.0.0.9',
      NODE_NAME: 'node-a',
      CLUSTER_ID: 'east',
      TEAM: 'mesh',
      PLAIN: 'yes-too',
      DNS_CAPTURE: 'true',
      LABELS: { app: 'ztunnel', n: 1 },
    },
  });
});
