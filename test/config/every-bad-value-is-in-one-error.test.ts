import assert from 'node:assert/strict';
import { test } from 'node:test';
import { loadConfig } from '../../src/config/config.ts';
import { problemsOf, systemWith } from './load.ts';

test('all bad values are named at once, in the order of the table', async () => {
  const problems = await problemsOf({
    PACKET_MARK: 'abc',
    IPV6_ENABLED: '1',
    RUST_LOG: 'shout',
    ISTIO_METAJSON_X: 'no json',
    PROXY_CONFIG: 'concurrency: many\nstatsPort: -1',
  });
  assert.deepEqual(problems, [
    'PACKET_MARK is "abc"; accepted: a whole number from 0 to 4294967295',
    'IPV6_ENABLED is "1"; accepted: true or false',
    'RUST_LOG is "shout"; accepted: a comma list of off, error, warn, info, debug, trace or target=level',
    'PROXY_CONFIG.statsPort is "-1"; accepted: a whole number from 0 to 65535',
    'PROXY_CONFIG.concurrency is "many"; accepted: a whole number from 0 to 1024',
    'ISTIO_METAJSON_X is "no json"; accepted: a JSON value',
  ]);
});

test('the headline counts them', async () => {
  const load = (env: Record<string, string>) => loadConfig(env, [], systemWith());
  await assert.rejects(load({ PACKET_MARK: 'x' }), /^CulvertError: one setting is not valid:\n- PACKET_MARK/);
  await assert.rejects(load({ PACKET_MARK: 'x', LOG_FORMAT: 'y' }), /^CulvertError: 2 settings are not valid:\n- /);
});

test('both sources of local mesh state at once are refused', async () => {
  assert.deepEqual(await problemsOf({ LOCAL_XDS: 'workloads: []', LOCAL_XDS_PATH: '/x' }), [
    'LOCAL_XDS_PATH and LOCAL_XDS; accepted: one of the two',
  ]);
});

test('TLS 1.2 and post-quantum compliance at once are refused', async () => {
  assert.deepEqual(await problemsOf({ TLS12_ENABLED: 'true', COMPLIANCE_POLICY: 'pqc' }), [
    'TLS12_ENABLED=true and COMPLIANCE_POLICY=pqc; accepted: one of the two (TLS 1.2 has no key exchange that the policy permits)',
  ]);
});

test('a header variable whose name cannot be a header is refused without its value', async () => {
  const [problem] = await problemsOf({ 'XDS_HEADER_A B': 'hush' });
  assert.match(problem!, /^XDS_HEADER_A B; accepted: /);
  assert.doesNotMatch(problem!, /hush/);
});

test('a bad value cannot forge lines of the error, nor flood it', async () => {
  const problems = await problemsOf({ PACKET_MARK: `1\n- INPOD_UDS is fine${'x'.repeat(10_000)}` });
  assert.equal(problems.length, 1);
  assert.ok(problems[0]!.length < 300);
});

test('headers that HTTP/2 or gRPC keep for themselves are refused', async () => {
  const refused = [
    'connection',
    'Upgrade',
    'transfer-encoding',
    'TE',
    'keep-alive',
    'host',
    ':path',
    'key-bin',
    'grpc-timeout',
  ];
  for (const family of ['XDS_HEADER_', 'CA_HEADER_']) {
    for (const name of refused) {
      const [problem] = await problemsOf({ [family + name]: 'hush' });
      assert.match(problem!, /; accepted: a header name after the prefix, none that HTTP\/2 or gRPC sets or forbids/);
      assert.ok(problem!.startsWith(family + name) && !problem!.includes('hush'));
    }
  }
});
