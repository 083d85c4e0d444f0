import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import { test } from 'node:test';
import { noApiServer } from './support/api-server.ts';
import { eventually } from './support/eventually.ts';
import { hostRules, isCaptured, testNode } from './support/node.ts';
import { connectTestAgent } from './support/zds-agent.ts';

const AMBIENT = { 'istio.io/dataplane-mode': 'ambient' };

test('labels take running pods into the mesh and out of it', { skip: noApiServer }, async (t) => {
  const node = await testNode(t);
  await node.addNamespace('demo');
  const uid = await node.addPodObject('demo', 'web');
  const optedOut = await node.addPodObject('demo', 'out', {
    metadata: { labels: { 'istio.io/dataplane-mode': 'none' } },
  });
  const web = await node.runPod('demo', 'web', uid);
  const out = await node.runPod('demo', 'out', optedOut);
  const agent = await node.startNodeAgent();
  await eventually('ready', async () => (await agent.readyz()) === 200);
  const proxy = connectTestAgent(node.zdsPath);
  await eventually('snapshot', () => proxy.isInformed());
  assert.equal(proxy.pods.size, 0);

  await node.label('demo', AMBIENT);
  await eventually('annotated', async () => (await node.annotation('demo', 'web')) === 'enabled');
  assert.equal(proxy.pods.get(uid), statSync(web.netnsPath).ino);
  assert.ok(await isCaptured(web));
  assert.match(await hostRules(node), new RegExp(`${web.ipv4} comment "${uid}"`));
  assert.equal(await node.annotation('demo', 'out'), null);
  assert.ok(!(await isCaptured(out)));
  // The API server has the annotation before the node agent hears that it has.
  await eventually('counted', async () => (await agent.metrics()).includes('culvert_cni_pods{state="enabled"} 1\n'));

  await node.label('demo', { 'istio.io/dataplane-mode': null });
  await eventually('annotation gone', async () => (await node.annotation('demo', 'web')) === null);
  assert.equal(proxy.pods.size, 0);
  assert.ok(!(await isCaptured(web)));
  assert.equal(await hostRules(node), '');
  assert.equal(await agent.stop(), 0, agent.log());
});
