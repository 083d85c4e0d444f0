import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Config } from '../../src/config/config.ts';
import { load, problemsOf } from './load.ts';

const MiB = 1024 * 1024;

const accepted: [variable: string, given: string, setting: keyof Config, value: unknown][] = [
  ['PROXY_MODE', 'shared', 'proxyMode', 'shared'],
  ['ENABLE_PROXY', 'true', 'proxy', true],
  ['INPOD_UDS', '/run/x.sock', 'inpodUds', '/run/x.sock'],
  ['INPOD_UDS', '', 'inpodUds', '/var/run/ztunnel/ztunnel.sock'],
  ['INPOD_PORT_REUSE', 'false', 'inpodPortReuse', false],
  ['PACKET_MARK', '0', 'packetMark', 0],
  ['PACKET_MARK', '4294967295', 'packetMark', 4294967295],
  ['ENABLE_ORIG_SRC', 'true', 'originalSource', true],
  ['ENABLE_ORIG_SRC', 'false', 'originalSource', false],
  ['IPV6_ENABLED', 'false', 'ipv6Enabled', false],
  ['KEEPALIVE_ENABLED', 'false', 'keepaliveEnabled', false],
  ['KEEPALIVE_TIME', '90s', 'keepaliveTime', 90_000],
  ['KEEPALIVE_INTERVAL', '1m', 'keepaliveInterval', 60_000],
  ['KEEPALIVE_RETRIES', '127', 'keepaliveRetries', 127],
  ['USER_TIMEOUT_ENABLED', 'true', 'userTimeoutEnabled', true],
  ['POOL_MAX_STREAMS_PER_CONNECTION', '1', 'poolMaxStreamsPerConnection', 1],
  ['POOL_UNUSED_RELEASE_TIMEOUT', '0', 'poolUnusedReleaseTimeout', 0],
  ['HTTP2_STREAM_WINDOW_SIZE', '65535', 'http2StreamWindow', 65535],
  ['HTTP2_CONNECTION_WINDOW_SIZE', '2147483647', 'http2ConnectionWindow', 2147483647],
  ['HTTP2_FRAME_SIZE', '16384', 'http2FrameSize', 16384],
  ['SECRET_TTL', '1h30m', 'secretTtl', 5_400_000],
  ['SECRET_TTL', '7d', 'secretTtl', 604_800_000],
  ['SECRET_TTL', '1.5h', 'secretTtl', 5_400_000],
  ['SECRET_TTL', '1h 30m', 'secretTtl', 5_400_000],
  ['NETWORK', 'east', 'network', 'east'],
  ['NODE_NAME', 'node1', 'localNode', 'node1'],
  ['NODE_NAME', '', 'localNode', null],
  ['CLUSTER_ID', 'c1', 'clusterId', 'c1'],
  ['CLUSTER_ID', '', 'clusterId', 'Kubernetes'],
  ['ISTIO_META_CLUSTER_ID', 'c2', 'clusterId', 'c2'],
  ['TRUST_DOMAIN', 'example.org', 'trustDomain', 'example.org'],
  ['CA_ADDRESS', 'ca.example:15012', 'caAddress', 'https://ca.example:15012'],
  ['CA_ADDRESS', 'https://ca.example', 'caAddress', 'https://ca.example'],
  ['CA_ADDRESS', '', 'caAddress', null],
  ['XDS_ADDRESS', 'https://[fd00::1]:15012/', 'xdsAddress', 'https://[fd00::1]:15012'],
  ['XDS_ADDRESS', '', 'xdsAddress', null],
  ['KUBERNETES_SERVICE_HOST', '10.96.0.1', 'xdsAddress', 'https://istiod.istio-system.svc:15012'],
  ['KUBERNETES_SERVICE_HOST', '10.96.0.1', 'caAddress', 'https://istiod.istio-system.svc:15012'],
  ['CA_ROOT_CA', 'SYSTEM', 'caRootCert', { kind: 'system' }],
  ['CA_ROOT_CA', '/etc/root.pem', 'caRootCert', { kind: 'file', path: '/etc/root.pem' }],
  ['LOCAL_XDS_PATH', '/etc/mesh.yaml', 'localConfig', { kind: 'file', path: '/etc/mesh.yaml' }],
  ['LOCAL_XDS', 'workloads: []', 'localConfig', { kind: 'inline', text: 'workloads: []' }],
  ['RUST_LOG', 'warn,access=info', 'logFilter', 'warn,access=info'],
  ['LOG_FORMAT', 'json', 'logFormat', 'json'],
  ['AUTHZ_POLICY_INFO_LOGGING', 'true', 'authzPolicyInfoLogging', true],
  ['ENABLE_RESPONSE_BAGGAGE', 'false', 'responseBaggage', false],
  ['LOCALHOST_APP_TUNNEL', 'false', 'localhostAppTunnel', false],
  ['CRL_PATH', '', 'crlPath', null],
  ['CRL_PATH', '/etc/crl.pem', 'crlPath', '/etc/crl.pem'],
  ['COMPLIANCE_POLICY', 'pqc', 'compliancePolicy', 'pqc'],
  ['COMPLIANCE_POLICY', '', 'compliancePolicy', null],
  ['TLS12_ENABLED', 'true', 'tls12Enabled', true],
  ['CULVERT_TLS_KEYLOG_ADDRESSES', '10.0.0.1, fd00::/64', 'tlsKeylogAddresses', ['10.0.0.1', 'fd00::/64']],
  ['XDS_ON_DEMAND', 'true', 'xdsOnDemand', true],
  ['ISTIO_META_ISTIO_VERSION', '1.30.0', 'metadata', { ISTIO_VERSION: '1.30.0' }],
  ['ISTIO_METAJSON_LABELS', '{"a":["b"]}', 'metadataJson', { LABELS: { a: ['b'] } }],
  ['CULVERT_CA_DIR', '/etc/ca', 'caDir', '/etc/ca'],
  ['CULVERT_TLS_KEYLOG', '/tmp/keys', 'tlsKeylog', '/tmp/keys'],
  ['CULVERT_TUNNEL_MAX_AGE', '0', 'tunnelMaxAge', 0],
  ['CULVERT_ADMIN_PORT', '0', 'adminPort', 0],
  ['CULVERT_STATS_PORT', '25020', 'statsPort', 25020],
  ['CULVERT_READINESS_PORT', '25021', 'readinessPort', 25021],
  ['CULVERT_TLS_HANDSHAKE_TIMEOUT', '250ms', 'tlsHandshakeTimeout', 250],
  ['CULVERT_HTTP2_SETTINGS_TIMEOUT', '3s', 'http2SettingsTimeout', 3000],
  ['CULVERT_MAX_HANDSHAKES_PER_POD', '0', 'maxHandshakesPerPod', 0],
  ['CULVERT_CONNECT_TIMEOUT', '3s', 'connectTimeout', 3000],
  ['CULVERT_CONNECT_RESPONSE_TIMEOUT', '5s', 'connectResponseTimeout', 5000],
  ['CULVERT_MEMORY_BUDGET', '64Mi', 'memoryBudget', 64 * MiB],
  ['CULVERT_MEMORY_BUDGET', '1Gi', 'memoryBudget', 1024 * MiB],
  ['CULVERT_MEMORY_BUDGET', '2097152', 'memoryBudget', 2 * MiB],
  ['CULVERT_MAX_CONNECTIONS_PER_POD', '0', 'maxConnectionsPerPod', 0],
];

for (const [variable, given, setting, value] of accepted) {
  test(`${variable}=${JSON.stringify(given)} sets ${setting}`, async () => {
    assert.deepEqual((await load({ [variable]: given }))[setting], value);
  });
}

const refused: [variable: string, given: string][] = [
  ['PROXY_MODE', 'dedicated'],
  ['ENABLE_PROXY', 'false'],
  ['INPOD_PORT_REUSE', 'yes'],
  ['INPOD_PORT_REUSE', 'TRUE'],
  ['INPOD_PORT_REUSE', ''],
  ['PACKET_MARK', '0x539'],
  ['PACKET_MARK', '-1'],
  ['PACKET_MARK', '4294967296'],
  ['PACKET_MARK', ''],
  ['ENABLE_ORIG_SRC', 'auto'],
  ['KEEPALIVE_TIME', '1500ms'],
  ['KEEPALIVE_TIME', '0s'],
  ['KEEPALIVE_TIME', '10h'],
  ['KEEPALIVE_RETRIES', '128'],
  ['POOL_MAX_STREAMS_PER_CONNECTION', '0'],
  ['POOL_MAX_STREAMS_PER_CONNECTION', '65536'],
  ['POOL_UNUSED_RELEASE_TIMEOUT', '30d'],
  ['HTTP2_STREAM_WINDOW_SIZE', '2147483648'],
  ['HTTP2_CONNECTION_WINDOW_SIZE', '65534'],
  ['HTTP2_FRAME_SIZE', '16383'],
  ['HTTP2_FRAME_SIZE', '16777216'],
  ['SECRET_TTL', '24'],
  ['SECRET_TTL', '1 day'],
  ['SECRET_TTL', '-1h'],
  ['SECRET_TTL', 'h'],
  ['TRUST_DOMAIN', 'a/b'],
  ['POD_NAME', 'a b'],
  ['INSTANCE_IP', '10.0.0.256'],
  ['CA_ADDRESS', 'http://ca.example:15012'],
  ['CA_ADDRESS', 'https://'],
  ['CA_ADDRESS', 'https://ca.example:99999'],
  ['XDS_ADDRESS', 'https://ca.example/path'],
  ['XDS_ADDRESS', 'https://user:secret@ca.example'],
  ['RUST_LOG', 'loud'],
  ['RUST_LOG', 'access'],
  ['LOG_FORMAT', 'xml'],
  ['COMPLIANCE_POLICY', 'fips'],
  ['TLS12_ENABLED', 'yes'],
  ['CULVERT_TLS_KEYLOG_ADDRESSES', '10.0.0.1,web'],
  ['CULVERT_TLS_KEYLOG_ADDRESSES', '10.0.0.0/33'],
  ['CULVERT_TLS_KEYLOG_ADDRESSES', 'fd00::/64/64'],
  ['XDS_ON_DEMAND', 'yes'],
  ['FAKE_CA', 'true'],
  ['UNSTABLE_ENABLE_SOCKS5', 'true'],
  ['ISTIO_METAJSON_LABELS', '{'],
  ['ZTUNNEL_WORKER_THREADS', '-1'],
  ['ZTUNNEL_WORKER_THREADS', '2.5'],
  ['ZTUNNEL_WORKER_THREADS', 'all'],
  ['ZTUNNEL_RESOURCE_CPU_LIMIT', '2 cores'],
  ['ZTUNNEL_RESOURCE_CPU_REQUEST', '1k'],
  ['ZTUNNEL_CPU_LIMIT', '1.5'],
  ['TERMINATION_GRACE_PERIOD_SECONDS', '30s'],
  ['CULVERT_ADMIN_PORT', '65536'],
  ['CULVERT_TLS_HANDSHAKE_TIMEOUT', '0'],
  ['CULVERT_MEMORY_BUDGET', '64MB'],
  ['CULVERT_MEMORY_BUDGET', '0'],
  ['CULVERT_MAX_CONNECTIONS_PER_POD', 'unlimited'],
];

for (const [variable, given] of refused) {
  test(`${variable}=${JSON.stringify(given)} is refused with the variable, the value and what is accepted`, async () => {
    const [problem, ...others] = await problemsOf({ [variable]: given });
    assert.equal(problem?.split('; accepted: ')[0], `${variable} is ${JSON.stringify(given)}`);
    assert.ok(problem?.split('; accepted: ')[1]);
    assert.deepEqual(others, []);
  });
}

test('an empty environment gives the documented defaults', async () => {
  const config = await load({});
  assert.equal(config.packetMark, 1337);
  assert.equal(config.originalSource, null);
  assert.equal(config.adminPort, 15000);
  assert.equal(config.statsPort, 15020);
  assert.equal(config.readinessPort, 15021);
  assert.equal(config.secretTtl, 86_400_000);
  assert.equal(config.tlsHandshakeTimeout, 10_000);
  assert.equal(config.connectTimeout, 10_000);
  assert.equal(config.memoryBudget, 256 * MiB);
  assert.equal(config.caDir, null);
  assert.equal(config.localConfig, null);
  assert.equal(config.xdsAddress, 'https://localhost:15012');
  assert.deepEqual(config.authToken, { kind: 'none' });
});

test('ISTIO_META_CLUSTER_ID wins over CLUSTER_ID', async () => {
  const config = await load({ CLUSTER_ID: 'one', ISTIO_META_CLUSTER_ID: 'two' });
  assert.equal(config.clusterId, 'two');
});

test('roots may be given as PEM text', async () => {
  const pem = '-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n';
  assert.deepEqual((await load({ XDS_ROOT_CA: pem })).xdsRootCert, { kind: 'inline', pem });
});

test('the agent knows its own identity only when its pod, namespace and service account are all set', async () => {
  const whole = { POD_NAME: 'a', POD_NAMESPACE: 'istio-system', SERVICE_ACCOUNT: 'ztunnel', TRUST_DOMAIN: 'td' };
  assert.equal((await load(whole)).agentIdentity, 'spiffe://td/ns/istio-system/sa/ztunnel');
  for (const missing of ['POD_NAME', 'POD_NAMESPACE', 'SERVICE_ACCOUNT']) {
    assert.equal((await load({ ...whole, [missing]: undefined })).agentIdentity, null, `without ${missing}`);
  }
});
