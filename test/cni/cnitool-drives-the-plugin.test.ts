import assert from 'node:assert/strict';
import { existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { PluginRequest } from '../../src/cni/plugin/request.ts';
import { startPluginServer } from '../../src/cni/plugin/server.ts';
import { formatPluginState } from '../../src/cni/plugin/state-file.ts';
import { runCommand } from '../../src/netns/run.ts';
import { goTool } from '../support/go-tools.ts';
import { podNetwork } from '../support/pods.ts';

const tool = goTool('cnitool');
const REFERENCE_PLUGINS = '/usr/lib/cni';
const skip = !existsSync(tool)
  ? `there is no ${tool}: npm run test:cluster builds it`
  : !existsSync(join(REFERENCE_PLUGINS, 'bridge'))
    ? 'there are no reference plugins (Debian: containernetworking-plugins)'
    : false;

test('the library that runtimes use takes a pod through the chain and out of it', { skip }, async (t) => {
  const network = await podNetwork(t);
  const pod = await network.addPod('pod');
  const [bin, conf] = ['bin', 'conf'].map((name) => join(network.folder, name)) as [string, string];
  for (const folder of [bin, conf]) mkdirSync(folder);
  symlinkSync(
    fileURLToPath(new URL('../../native/cni-plugin/build/culvert-cni', import.meta.url)),
    join(bin, 'culvert-cni'),
  );
  const [socket, state] = [join(network.folder, 'cni.sock'), join(network.folder, 'state')];
  writeFileSync(state, formatPluginState({ enrolledNamespaces: ['demo'], exempt: [] }));
  const ipam = { type: 'host-local', subnet: '10.77.0.0/24', dataDir: join(network.folder, 'ipam') };
  const entry = { type: 'culvert-cni', socket, state };
  const write = (name: string, cniVersion: string, plugins: object[]) =>
    writeFileSync(join(conf, `${name}.conflist`), JSON.stringify({ cniVersion, name, plugins }));
  write('chain', '1.0.0', [{ type: 'bridge', bridge: 'cni0', isGateway: true, ipam }, entry]);
  // Version 1.1 is more than Debian's bridge knows.
  write('alone', '1.1.0', [entry]);

  const asked: { request: PluginRequest; netns: string | null }[] = [];
  const serve = () =>
    startPluginServer({
      path: socket,
      log: { warn() {} },
      onAnswer() {},
      async handle(request, netns) {
        asked.push({ request, netns: netns?.key ?? null });
        netns?.close();
        return { kind: 'ok' };
      },
    });
  const cnitool = async (command: string, list: string) =>
    await runCommand(
      [
        'env',
        `CNI_PATH=${REFERENCE_PLUGINS}:${bin}`,
        `NETCONFPATH=${conf}`,
        'CNI_IFNAME=eth1',
        'CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=demo;K8S_POD_NAME=web;K8S_POD_UID=u1',
        ...[tool, command, list, pod.netnsPath],
      ],
      { netns: network.node.fd },
    );
  const done = async (command: string, list = 'chain') => {
    const { status, stdout, stderr } = await cnitool(command, list);
    assert.equal(status, 0, `${command}: ${stdout} ${stderr}`);
    return stdout;
  };

  const server = serve();
  t.after(() => server.close());
  const result = JSON.parse(await done('add')) as { ips: { address: string }[] };
  assert.match(result.ips[0]!.address, /^10\.77\.0\.\d+\/24$/);
  for (const command of ['check', 'del']) await done(command);
  for (const command of ['add', 'check', 'status', 'gc', 'del']) await done(command, 'alone');
  assert.deepEqual(
    asked.map(({ request: { command } }) => command),
    // Before it asks for GC, the library deletes what it knows and is not told to keep.
    ['ADD', 'CHECK', 'DEL', 'ADD', 'CHECK', 'STATUS', 'DEL', 'GC', 'DEL'],
  );
  const [added] = asked;
  assert.equal(added!.netns, pod.netns.key);
  assert.deepEqual(added!.request.pod, { namespace: 'demo', name: 'web', uid: 'u1' });
  assert.deepEqual(added!.request.ips, [result.ips[0]!.address.replace('/24', '')]);

  server.close();
  const refused = await cnitool('add', 'chain');
  assert.notEqual(refused.status, 0);
  assert.match(refused.stdout + refused.stderr, /namespace demo is in the mesh/);
  await done('del');
});
