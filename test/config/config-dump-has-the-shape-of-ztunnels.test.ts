import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { loadConfig } from '../../src/config/config.ts';
import { dumpConfig } from '../../src/config/dump.ts';
import { load, systemWith } from './load.ts';

/** Settings of the DNS proxy, which is not part of this version. */
const DNS = [
  'clusterDomain',
  'dnsProxy',
  'dnsProxyAddr',
  'dnsResolverCfg',
  'dnsResolverOpts',
  'preferedServiceNamespace',
];

test('a dump of ztunnel is reproduced, key by key, under the same environment', async () => {
  const text = readFileSync(new URL('fixtures/ztunnel-config-dump.json', import.meta.url), 'utf8');
  const expected: Record<string, unknown> = JSON.parse(text);
  const env = {
    NODE_NAME: 'node1',
    POD_NAME: 'ztunnel-node1',
    POD_NAMESPACE: 'istio-system',
    SERVICE_ACCOUNT: 'ztunnel',
    ISTIO_META_CLUSTER_ID: 'Kubernetes',
    ISTIO_META_DNS_CAPTURE: 'true',
    ISTIO_META_DNS_PROXY_ADDR: '127.0.0.1:15053',
  };
  const dump = dumpConfig(await loadConfig(env, ['proxy', 'ztunnel'], systemWith()));
  const same = Object.keys(expected).filter((key) => !DNS.includes(key));
  assert.deepEqual(
    Object.fromEntries(same.map((key) => [key, dump[key]])),
    Object.fromEntries(same.map((key) => [key, expected[key]])),
  );
});

test('durations are seconds and nanoseconds, absent values null, addresses follow IPV6_ENABLED', async () => {
  const dump = dumpConfig(
    await load({ IPV6_ENABLED: 'false', CULVERT_TUNNEL_MAX_AGE: '1500ms', ENABLE_ORIG_SRC: 'true' }),
  );
  assert.deepEqual(dump.tunnelMaxAge, { secs: 1, nanos: 500_000_000 });
  assert.equal(dump.caDir, null);
  assert.equal(dump.requireOriginalSource, true);
  assert.deepEqual(dump.adminAddr, { Localhost: [false, 15000] });
  assert.deepEqual(dump.statsAddr, { SocketAddr: '0.0.0.0:15020' });
  assert.equal(dump.inboundAddr, '0.0.0.0:15008');
});

test('other kinds of roots have their own form', async () => {
  const dump = dumpConfig(await load({ CA_ROOT_CA: 'SYSTEM', XDS_ROOT_CA: '-----BEGIN CERTIFICATE-----' }));
  assert.equal(dump.caRootCert, 'Default');
  assert.deepEqual(dump.xdsRootCert, { Static: [] });
});
