import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { runCulvert } from '../support/culvert-process.ts';
import { freePorts } from '../support/free-ports.ts';
import { meshNetwork, meshText, startAgent } from '../support/mesh.ts';
import { patiently } from '../support/pod-sockets.ts';

test('an agent that cannot start says why, in words for who has to change it, and exits with 1', async (t) => {
  const network = await meshNetwork(t);
  const { folder } = network;
  const meshFile = join(folder, 'mesh.yaml');
  writeFileSync(meshFile, meshText({}));
  const [admin, stats, readiness] = (await freePorts(3)).map(String);
  const good = {
    XDS_ADDRESS: '',
    LOCAL_XDS_PATH: meshFile,
    CULVERT_CA_DIR: join(folder, 'ca'),
    INPOD_UDS: join(folder, 'zds.sock'),
    ZTUNNEL_WORKER_THREADS: '1',
    CULVERT_ADMIN_PORT: admin!,
    CULVERT_STATS_PORT: stats!,
    CULVERT_READINESS_PORT: readiness!,
  };
  const { CULVERT_CA_DIR: _, ...withoutCa } = good;
  const broken = join(folder, 'broken.yaml');
  writeFileSync(broken, 'workloads:\n- name: x\n  color: red\n');
  const brokenCa = join(folder, 'broken-ca');
  mkdirSync(brokenCa);
  writeFileSync(join(brokenCa, 'ca-key.pem'), 'nothing');
  const taken = createServer().listen(0, '127.0.0.1');
  await once(taken, 'listening');
  t.after(() => taken.close());
  const takenPort = String((taken.address() as { port: number }).port);

  const failures: { name: string; env?: Record<string, string>; argv?: string[]; says: RegExp[] }[] = [
    {
      name: 'without a CA',
      env: withoutCa,
      says: [/CA_ROOT_CA cannot be used: ENOENT.*root-cert\.pem/, /set CULVERT_CA_DIR to a folder/],
    },
    {
      name: 'without an address of a CA',
      env: { ...withoutCa, CA_ADDRESS: '' },
      says: [/set CA_ADDRESS .* or CULVERT_CA_DIR to a folder/],
    },
    {
      name: 'with bad values, all at once',
      env: { ...good, IPV6_ENABLED: 'yes', SECRET_TTL: 'soon', RUST_LOG: 'loud' },
      says: [/IPV6_ENABLED.*yes/, /SECRET_TTL.*soon/, /RUST_LOG.*loud/],
    },
    {
      name: 'with a broken mesh file, and an argument, for which it would have started',
      env: { ...good, LOCAL_XDS_PATH: broken },
      argv: ['agent', 'ztunnel'],
      says: [/culvert agent ignores its arguments: ztunnel/, /broken\.yaml:3:3: .*color/],
    },
    {
      name: 'with a mesh file that is not there',
      env: { ...good, LOCAL_XDS_PATH: join(folder, 'absent.yaml') },
      says: [/absent\.yaml cannot be read/],
    },
    { name: 'with a broken CA folder', env: { ...good, CULVERT_CA_DIR: brokenCa }, says: [/broken-ca/] },
    {
      name: 'with a port that is taken',
      env: { ...good, CULVERT_ADMIN_PORT: takenPort },
      says: [
        new RegExp(`failed to bind to address 127\\.0\\.0\\.1:${takenPort}: .*address already in use`),
        /the port for admin is a setting/,
      ],
    },
    {
      name: 'as a node agent outside of a pod',
      env: { ...good, KUBERNETES_SERVICE_HOST: '', NODE_NAME: '' },
      // As of istio-cni.
      argv: ['cni', '--log_output_level=default:info', '--log_as_json'],
      says: [
        /^culvert cni ignores its arguments: --log_output_level=default:info --log_as_json\nits settings are/,
        /- NODE_NAME is not set; accepted: .*spec\.nodeName/,
        /- KUBERNETES_SERVICE_HOST is not set; accepted: .* gives to every pod/,
      ],
    },
    { name: 'with an unknown command', env: good, argv: ['agnet'], says: [/unknown command: agnet/, /usage: culvert/] },
  ];
  for (const { name, env = good, argv = ['agent'], says } of failures) {
    await t.test(name, async (t) => {
      const { child, exited, output } = runCulvert(argv, env);
      t.after(() => child.kill('SIGKILL'));
      assert.equal(await patiently('still running', exited), 1, output());
      for (const expected of says) assert.match(output(), expected);
      // A message, not a trace of the program's inside.
      assert.doesNotMatch(output(), /^\s+at .*:\d+:\d+/m);
      t.diagnostic(output().trimEnd().split('\n').at(-1) ?? '');
    });
  }

  await t.test('readiness answers 500 from the start on, names what is awaited, and becomes 200', async () => {
    const agent = await startAgent({ network, mesh: {} });
    await agent.until(
      'ready',
      () => agent.ready(),
      ({ status, body }) => {
        assert.ok((status === 200 && body === 'ready\n') || /^not ready, pending: [a-z ,]+\n$/.test(body), body);
        return status === 200;
      },
    );
    agent.zds.close();
    await agent.until(
      'not ready without the node agent',
      () => agent.ready(),
      ({ status }) => status === 500,
    );
    assert.equal((await agent.ready()).body, 'not ready, pending: workload proxy manager\n');
  });

  await t.test('without a node agent it waits, not ready, and says what it cannot reach', async (t) => {
    const { child, exited, output, watch } = runCulvert(['proxy', 'ztunnel'], good);
    t.after(() => child.kill('SIGKILL'));
    const tells = async (text: string) => {
      const told = new Promise<void>((resolve) => {
        const look = () => output().includes(text) && resolve();
        watch(look);
        look();
      });
      await patiently(`did not say ${text}`, told).catch((cause) => assert.fail(`${cause.message}, but\n${output()}`));
    };
    await tells('culvert agent started');
    await tells('zds.sock');
    const answer = await fetch(`http://127.0.0.1:${readiness}/healthz/ready`);
    assert.equal(answer.status, 500);
    assert.equal(await answer.text(), 'not ready, pending: workload proxy manager\n');
    child.kill('SIGTERM');
    assert.equal(await patiently('still running', exited), 0);
  });

  await t.test('version and help start nothing, and a control plane refuses arguments', async () => {
    for (const [argv, status, says] of [
      [['version'], 0, /^culvert \d+\.\d+\.\d+/],
      [['help'], 0, /usage: culvert <command>/],
      [['agent', '--help'], 0, /usage: culvert <command>/],
      [['proxy', 'ztunnel', '-h'], 0, /usage: culvert <command>/],
      [['cni', '--log_as_json', '--help'], 0, /^culvert \S+: [\s\S]*usage: culvert <command>/],
      [['control', 'status'], 2, /culvert control takes no arguments, and got: status/],
    ] as const) {
      const { child, exited, output } = runCulvert(argv, {});
      t.after(() => child.kill('SIGKILL'));
      assert.equal(await patiently('still running', exited), status, output());
      assert.match(output(), says);
    }
  });
});
