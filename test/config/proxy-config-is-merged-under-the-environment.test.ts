import assert from 'node:assert/strict';
import { test } from 'node:test';
import { load, problemsOf } from './load.ts';

const MESH = './etc/istio/config/mesh';

test('PROXY_CONFIG without proxyMetadata is fine', async () => {
  const config = await load({
    PROXY_CONFIG: 'discoveryAddress: istiod.mesh:15012\nproxyAdminPort: 15100\nstatsPort: 15120',
  });
  assert.equal(config.xdsAddress, 'https://istiod.mesh:15012');
  assert.equal(config.adminPort, 15100);
  assert.equal(config.statsPort, 15120);
  assert.deepEqual(config.metadata, {});
});

test('the mesh file is read under defaultConfig and PROXY_CONFIG wins, metadata key by key', async () => {
  const mesh = `
trustDomain: ignored.example
defaultConfig:
  discoveryAddress: from-file:15012
  statsPort: 1111
  holdApplicationUntilProxyStarts: true
  proxyMetadata: {ISTIO_META_A: file, B: file, FLAG: true}
`;
  const env = { PROXY_CONFIG: '{"statsPort": 2222, "proxyMetadata": {"B": "variable"}}', ISTIO_META_C: 'environment' };
  const config = await load(env, { [MESH]: mesh });
  assert.equal(config.xdsAddress, 'https://from-file:15012');
  assert.equal(config.statsPort, 2222);
  assert.deepEqual(config.metadata, { A: 'file', B: 'variable', FLAG: 'true', C: 'environment' });
});

test('variables win over the proxy configuration', async () => {
  const config = await load({
    PROXY_CONFIG: 'discoveryAddress: a:1\nproxyAdminPort: 1\nstatsPort: 2\nproxyMetadata: {X: config}',
    XDS_ADDRESS: '',
    CULVERT_ADMIN_PORT: '3',
    CULVERT_STATS_PORT: '4',
    ISTIO_META_X: 'environment',
  });
  assert.equal(config.xdsAddress, null);
  assert.equal(config.adminPort, 3);
  assert.equal(config.statsPort, 4);
  assert.deepEqual(config.metadata, { X: 'environment' });
});

test('an empty mesh file and one of only comments say nothing', async () => {
  for (const text of ['', '# nothing\n', 'defaultConfig:\n'])
    assert.equal((await load({}, { [MESH]: text })).adminPort, 15000);
});

const refused: [text: string, problem: RegExp][] = [
  ['a: [', /^PROXY_CONFIG; accepted: YAML \(.+\)$/],
  ['just text', /^PROXY_CONFIG is "just text"; accepted: a YAML mapping$/],
  ['statsPort: 70000', /^PROXY_CONFIG\.statsPort is "70000"; accepted: a whole number/],
  ['concurrency: {}', /^PROXY_CONFIG\.concurrency is "\{\}"; accepted: a whole number/],
  ['discoveryAddress: http://x', /^PROXY_CONFIG\.discoveryAddress is "http:\/\/x"; accepted: https/],
  ['proxyMetadata: [1]', /^PROXY_CONFIG\.proxyMetadata is "\[1\]"; accepted: a mapping of names to texts$/],
  ['proxyMetadata: {A: {}}', /^PROXY_CONFIG\.proxyMetadata is .+; accepted: a mapping of names to texts$/],
];

for (const [text, problem] of refused) {
  test(`PROXY_CONFIG ${JSON.stringify(text)} is refused`, async () => {
    const problems = await problemsOf({ PROXY_CONFIG: text });
    assert.equal(problems.length, 1);
    assert.match(problems[0]!, problem);
  });
}

test('a mistake in the mesh file is named with the file', async () => {
  const [problem] = await problemsOf({}, { [MESH]: 'defaultConfig: 5' });
  assert.equal(problem, `${MESH}.defaultConfig is "5"; accepted: a YAML mapping`);
});
