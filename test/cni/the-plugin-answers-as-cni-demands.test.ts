import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { type PluginAnswer, type PluginRequest, readPluginRequest } from '../../src/cni/plugin/request.ts';
import { startPluginServer } from '../../src/cni/plugin/server.ts';
import { formatPluginState } from '../../src/cni/plugin/state-file.ts';

const plugin = fileURLToPath(new URL('../../native/cni-plugin/build/culvert-cni', import.meta.url));

interface Call {
  env?: Record<string, string>;
  config?: unknown;
}

interface Outcome {
  status: number | null;
  stdout: string;
  json: Record<string, unknown> | null;
}

/** Runs the plugin as a runtime would, for a pod of the namespace `demo`. */
function call(command: string, { env = {}, config = {} }: Call): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(plugin, {
      env: {
        CNI_COMMAND: command,
        CNI_CONTAINERID: 'c1',
        CNI_NETNS: '/proc/self/ns/net',
        CNI_IFNAME: 'eth0',
        CNI_PATH: '/opt/cni/bin',
        CNI_ARGS: 'IgnoreUnknown=1;K8S_POD_NAMESPACE=demo;K8S_POD_NAME=web-1;K8S_POD_UID=u1',
        ...env,
      },
    });
    let stdout = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    child.on('error', reject);
    child.on('close', (status) => resolve({ status, stdout, json: stdout === '' ? null : JSON.parse(stdout) }));
    child.stdin.on('error', () => {});
    child.stdin.end(typeof config === 'string' || Buffer.isBuffer(config) ? config : JSON.stringify(config));
  });
}

/** A node agent that notes what it is asked. */
function nodeAgent(t: TestContext, answer: (request: PluginRequest) => PluginAnswer | Promise<PluginAnswer>) {
  const folder = scratch(t);
  const asked: { request: PluginRequest; netns: string | null }[] = [];
  const socket = join(folder, 'cni.sock');
  const server = startPluginServer({
    path: socket,
    log: { warn() {} },
    onAnswer() {},
    async handle(request, netns) {
      asked.push({ request, netns: netns?.key ?? null });
      netns?.close();
      return await answer(request);
    },
  });
  t.after(() => server.close());
  return {
    asked,
    config: { cniVersion: '1.1.0', name: 'kube', type: 'culvert-cni', socket, state: join(folder, 'none') },
  };
}

function scratch(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'culvert-plugin-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

const prevResult = {
  cniVersion: '1.1.0',
  interfaces: [{ name: 'eth0', sandbox: '/proc/1/ns/net' }],
  ips: [{ address: '10.1.0.5/24', interface: 0 }, { address: 'fd00::5/64' }],
  dns: {},
};

test('ADD hands over the pod with its namespace, and passes on the result before byte for byte', async (t) => {
  const { asked, config } = nodeAgent(t, () => ({ kind: 'ok' }));
  const text = `{"prevResult" : ${JSON.stringify(prevResult, null, 3)}, ${JSON.stringify(config).slice(1)}`;
  const { status, stdout } = await call('ADD', { config: text });
  assert.equal(status, 0);
  assert.equal(stdout, `${JSON.stringify(prevResult, null, 3)}\n`);
  const [{ request, netns } = assert.fail('not asked')] = asked;
  assert.deepEqual(request, {
    command: 'ADD',
    containerId: 'c1',
    pod: { namespace: 'demo', name: 'web-1', uid: 'u1' },
    ips: ['10.1.0.5', 'fd00::5'],
    validContainers: null,
  });
  assert.match(netns!, /^\d+:\d+$/);
});

test('an ADD without a result before prints an empty one of the version that was asked for', async (t) => {
  const { config } = nodeAgent(t, () => ({ kind: 'ok' }));
  const { json } = await call('ADD', { config: { ...config, cniVersion: '0.4.0' } });
  assert.deepEqual(json, { cniVersion: '0.4.0' });
});

test('an error of the node agent is printed as one, with its code', async (t) => {
  const { config } = nodeAgent(t, () => ({ kind: 'error', code: 11, message: 'no "agent"\nis\tthere ü' }));
  const { status, json } = await call('ADD', { config });
  assert.equal(status, 1);
  assert.deepEqual(json, { cniVersion: '1.1.0', code: 11, msg: 'culvert-cni: no "agent"\nis\tthere ü' });
});

test('DEL, CHECK and STATUS print nothing, GC hands over what is valid', async (t) => {
  const { asked, config } = nodeAgent(t, () => ({ kind: 'ok' }));
  for (const command of ['DEL', 'CHECK', 'STATUS']) {
    assert.deepEqual(await call(command, { config: { ...config, prevResult } }), { status: 0, stdout: '', json: null });
  }
  const attachments = { 'cni.dev/valid-attachments': [{ containerID: 'a', ifname: 'eth0' }, { containerID: 'b' }] };
  assert.equal((await call('GC', { config: { ...config, ...attachments } })).status, 0);
  assert.deepEqual(asked.at(-1)!.request.validContainers, new Set(['a', 'b']));
  // The namespace of a sandbox that ends may be gone already.
  assert.equal((await call('DEL', { config, env: { CNI_NETNS: '' } })).status, 0);
});

test('VERSION says what is supported', async () => {
  const { status, json } = await call('VERSION', { config: { cniVersion: '1.0.0' } });
  assert.equal(status, 0);
  assert.equal(json!.cniVersion, '1.0.0');
  assert.deepEqual((json!.supportedVersions as string[]).at(-1), '1.1.0');
});

for (const [what, command, { env, config }, code] of [
  ['an unknown command', 'FLY', {}, 4],
  ['a missing container id', 'ADD', { env: { CNI_CONTAINERID: '' }, config: { cniVersion: '1.0.0' } }, 4],
  ['a namespace that is not there', 'ADD', { env: { CNI_NETNS: '/nowhere' }, config: { cniVersion: '1.0.0' } }, 4],
  ['a line break in the environment', 'ADD', { env: { CNI_IFNAME: 'a\nb' }, config: { cniVersion: '1.0.0' } }, 4],
  ['a version from the future', 'ADD', { config: { cniVersion: '2.0.0' } }, 1],
  ['STATUS of an old version', 'STATUS', { config: { cniVersion: '1.0.0' } }, 1],
  ['a configuration that is no JSON', 'ADD', { config: '{"cniVersion":"1.0.0",}' }, 6],
  ['a configuration that is too long', 'ADD', { config: { cniVersion: '1.0.0', more: 'x'.repeat(200_000) } }, 7],
] as [string, string, Call, number][]) {
  test(`${what} is error ${code}`, async () => {
    const { status, json } = await call(command, { env: env ?? {}, config: config ?? {} });
    assert.equal(status, 1);
    assert.equal(json!.code, code, JSON.stringify(json));
    assert.equal(typeof json!.cniVersion, 'string');
  });
}

test('while no node agent answers, only pods of enrolled namespaces wait, and those of culvert never', async (t) => {
  const folder = scratch(t);
  const config = { cniVersion: '1.0.0', socket: join(folder, 'none'), state: join(folder, 'cni-state'), prevResult };
  const of = (namespace: string, name: string) => ({
    CNI_ARGS: `K8S_POD_NAMESPACE=${namespace};K8S_POD_NAME=${name}`,
  });
  assert.equal((await call('ADD', { config, env: of('demo', 'web') })).status, 0, 'nothing is known to be enrolled');
  writeFileSync(
    config.state,
    formatPluginState({
      enrolledNamespaces: ['demo', 'culvert-system'],
      exempt: [{ namespace: 'culvert-system', prefix: 'culvert-agent-' }],
    }),
  );
  const refused = await call('ADD', { config, env: of('demo', 'web') });
  assert.equal(refused.json!.code, 11);
  assert.match(String(refused.json!.msg), /namespace demo is in the mesh.*culvert-cni pod/);
  for (const [namespace, name, status] of [
    ['other', 'web', 0],
    ['dem', 'web', 0],
    ['demo', 'culvert-agent-x', 1],
    ['culvert-system', 'culvert-agent-x', 0],
    ['culvert-system', 'web', 1],
  ] as const) {
    assert.equal((await call('ADD', { config, env: of(namespace, name) })).status, status, `${namespace}/${name}`);
  }
  assert.equal((await call('DEL', { config, env: of('demo', 'web') })).status, 0);
  assert.equal((await call('STATUS', { config: { ...config, cniVersion: '1.1.0' } })).status, 0);
  // Not a pod of Kubernetes.
  assert.equal((await call('ADD', { config, env: { CNI_ARGS: '' } })).status, 0);
});

test('a node agent that does not know yet leaves the decision to the plugin', async (t) => {
  const { config } = nodeAgent(t, () => ({ kind: 'unavailable', reason: 'still starting' }));
  writeFileSync(config.state, formatPluginState({ enrolledNamespaces: ['demo'], exempt: [] }));
  assert.match(String((await call('ADD', { config })).json!.msg), /still starting/);
  writeFileSync(config.state, formatPluginState({ enrolledNamespaces: [], exempt: [] }));
  assert.equal((await call('ADD', { config })).status, 0);
});

test('the plugin takes exactly what JSON allows', async () => {
  const mutated = fc
    .tuple(fc.json({ depthSize: 'small' }), fc.nat(200), fc.string({ maxLength: 2 }))
    .map(([text, at, noise]) => {
      const object = `{"cniVersion":"1.0.0","a":${text}}`;
      return object.slice(0, at % object.length) + noise + object.slice((at % object.length) + noise.length);
    });
  await fc.assert(
    fc.asyncProperty(fc.oneof(mutated, fc.string()), async (text) => {
      let valid: boolean;
      try {
        const value = JSON.parse(text);
        valid = typeof value === 'object' && value !== null && !Array.isArray(value);
      } catch {
        valid = false;
      }
      if (text === '') return;
      const { json } = await call('VERSION', { config: text });
      assert.equal(json!.code === undefined, valid, text);
    }),
    { numRuns: 150 },
  );
});

test('any packet is a request or one clear error', () => {
  const head = 'CNI_COMMAND=ADD\nCNI_CONTAINERID=c\nCNI_ARGS=K8S_POD_NAME=p;K8S_POD_NAMESPACE=n\n\n';
  fc.assert(
    fc.property(
      fc.oneof(
        fc.uint8Array({ maxLength: 200 }),
        fc.jsonValue().map((value) => Buffer.from(head + JSON.stringify(value))),
        fc.jsonValue().map((value) => Buffer.from(`${head}{"prevResult":{"ips":${JSON.stringify(value)}}}`)),
      ),
      (packet) => {
        try {
          readPluginRequest(packet);
        } catch (error) {
          assert.equal((error as { code?: string }).code, 'CNI_REQUEST_INVALID');
        }
      },
    ),
  );
  const evil = 'CNI_COMMAND=ADD\nCNI_ARGS=K8S_POD_NAME=../../secrets;K8S_POD_NAMESPACE=n\n\n{}';
  assert.throws(() => readPluginRequest(Buffer.from(evil)), { code: 'CNI_REQUEST_INVALID' });
});
