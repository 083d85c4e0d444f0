import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Baggage, buildBaggage, parseBaggage } from '../../../src/hbone/baggage.ts';
import { fieldFault } from '../../../src/hbone/field-rules.ts';
import { buildForwarded, parseForwarded } from '../../../src/hbone/forwarded.ts';
import { createTraceparentSource, parseTraceparent } from '../../../src/hbone/traceparent.ts';

const UNKNOWN: Baggage = {
  clusterId: '',
  namespace: '',
  workloadType: '',
  workloadName: '',
  canonicalName: '',
  canonicalRevision: '',
  region: '',
  zone: '',
};
const WORKLOAD: Baggage = {
  clusterId: 'Kubernetes',
  namespace: 'default',
  workloadType: 'deployment',
  workloadName: 'web',
  canonicalName: 'web-service',
  canonicalRevision: 'v1',
  region: 'r1',
  zone: 'z1',
};
const WORKLOAD_HEADER =
  'k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.deployment.name=web,service.name=web-service,' +
  'service.version=v1,cloud.region=r1,cloud.availability_zone=z1';

test('baggage lists what is known in the order of its peers', () => {
  assert.equal(buildBaggage(WORKLOAD), WORKLOAD_HEADER);
  assert.equal(
    buildBaggage({ ...UNKNOWN, namespace: 'n', zone: 'z' }),
    'k8s.namespace.name=n,cloud.availability_zone=z',
  );
  assert.equal(buildBaggage(UNKNOWN), '');
  assert.equal(buildBaggage({ ...UNKNOWN, workloadType: 'replicaset', workloadName: 'x' }), '');
});

const BAGGAGE: ReadonlyArray<{ title: string; header: string; baggage: Partial<Baggage> }> = [
  { title: 'all parts', header: WORKLOAD_HEADER, baggage: WORKLOAD },
  { title: 'nothing', header: '', baggage: {} },
  { title: 'empty values', header: 'k8s.cluster.name=,service.name=', baggage: {} },
  ...['deployment', 'cronjob', 'pod', 'job'].map((workloadType) => ({
    title: workloadType,
    header: `k8s.${workloadType}.name=w`,
    baggage: { workloadType, workloadName: 'w' },
  })),
  { title: 'unknown keys', header: 'a=b,k8s.node.name=n,service.name=s', baggage: { canonicalName: 's' } },
  {
    title: 'white space',
    header: ' service.name\t= s ,\tcloud.region =r',
    baggage: { canonicalName: 's', region: 'r' },
  },
  { title: 'percent-encoding', header: 'service.name=a%20b%C3%A9%2c', baggage: { canonicalName: 'a b\u00e9,' } },
  {
    title: 'half a percent-encoding',
    header: 'service.name=100%,cloud.region=%4',
    baggage: { canonicalName: '100%', region: '%4' },
  },
  { title: 'octets that are no UTF-8', header: 'service.name=%ff', baggage: { canonicalName: '\ufffd' } },
  { title: 'properties', header: 'service.name=s;secret;ttl=5', baggage: { canonicalName: 's' } },
  { title: 'an equals sign in a value', header: 'service.name=a=b', baggage: { canonicalName: 'a=b' } },
  { title: 'the later of two', header: 'service.name=a,service.name=b', baggage: { canonicalName: 'b' } },
  { title: 'members without a value', header: ',,service.name,cloud.region=r,', baggage: { region: 'r' } },
  { title: 'encoded control characters', header: 'service.name=a%0ab,cloud.region=r', baggage: { region: 'r' } },
  { title: 'octets beyond ASCII', header: 'service.name=\u00e9,cloud.region=r', baggage: { region: 'r' } },
  { title: 'a value that no name can have', header: `service.name=${'x'.repeat(254)}`, baggage: {} },
  { title: 'members beyond 64', header: `${'a=b,'.repeat(64)}service.name=s`, baggage: {} },
  { title: 'a header beyond 8192', header: `a=${'b'.repeat(8192)},service.name=s`, baggage: {} },
];

for (const { title, header, baggage } of BAGGAGE) {
  test(`baggage with ${title}`, () => assert.deepEqual(parseBaggage(header), { ...UNKNOWN, ...baggage }));
}

test('a name in baggage comes back as it was and forges nothing', () => {
  const name = fc.oneof(
    fc.constantFrom('a,k8s.namespace.name=evil', 'a;b', 'a%41', '"q"', 'a\\b', ' a '),
    fc.string({ unit: fc.constantFrom(...'ab,;=%"\\ -\u00e9\u2603'), maxLength: 20 }),
  );
  fc.assert(
    fc.property(name, name, name, (namespace, workloadName, zone) => {
      const workload = { ...WORKLOAD, namespace, workloadName, zone };
      const header = buildBaggage(workload);
      assert.equal(fieldFault(['baggage', header]), null);
      assert.deepEqual(parseBaggage(header), { ...workload, workloadType: workloadName === '' ? '' : 'deployment' });
    }),
  );
});

test('forwarded names the client and the service', () => {
  assert.equal(buildForwarded({ ip: '10.0.0.1', port: 1234 }, null), 'for="10.0.0.1:1234"');
  assert.equal(buildForwarded({ ip: 'fd00::1', port: 1 }, null), 'for="[fd00::1]:1"');
  assert.equal(buildForwarded({ ip: '10.0.0.1', port: 1 }, 'a.b.svc'), 'for="10.0.0.1:1";host=a.b.svc');
  assert.equal(buildForwarded({ ip: '10.0.0.1', port: 1 }, '*.b'), 'for="10.0.0.1:1";host=*.b');
  assert.equal(buildForwarded({ ip: '10.0.0.1', port: 1 }, 'a;b"'), 'for="10.0.0.1:1";host="a;b\\""');
  assert.equal(buildForwarded({ ip: '10.0.0.1', port: 1 }, 'a\r\nb'), 'for="10.0.0.1:1"');
});

const FORWARDED: ReadonlyArray<{ header: string; client: string | null; host: string | null }> = [
  { header: 'for="10.0.0.1:1234";host=a.b', client: '10.0.0.1:1234', host: 'a.b' },
  { header: 'for="[::1]:80";host="a.b"', client: '[::1]:80', host: 'a.b' },
  { header: 'Host=a.b; FOR=10.0.0.1:80', client: '10.0.0.1:80', host: 'a.b' },
  { header: 'proto=https;by=_x;host=a.b', client: null, host: 'a.b' },
  { header: 'for="a\\"b"', client: 'a"b', host: null },
  { header: 'for="a;host=evil"', client: 'a;host=evil', host: null },
  { header: 'host=a, host=b', client: null, host: 'a' },
  { header: 'for=x, host=b', client: 'x', host: null },
  { header: 'host=', client: null, host: null },
  { header: '', client: null, host: null },
  { header: 'host', client: null, host: null },
  { header: 'host=a b', client: null, host: null },
  { header: 'host="a', client: null, host: null },
  { header: 'host=a;;for=b', client: null, host: null },
  { header: `host=${'a'.repeat(1024)}`, client: null, host: null },
];

for (const { header, client, host } of FORWARDED) {
  test(`forwarded ${JSON.stringify(header.slice(0, 40))}`, () =>
    assert.deepEqual(parseForwarded(header), { client, host }));
}

test('traceparents are well-formed and never repeat', () => {
  const next = createTraceparentSource();
  const seen = new Set<string>();
  for (let i = 0; i < 1000; i++) {
    const traceparent = next();
    assert.match(traceparent, /^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/);
    assert.notEqual(parseTraceparent(traceparent), null);
    seen.add(traceparent);
  }
  assert.equal(seen.size, 1000);
});

test('a traceparent is made of the random octets it is given', () => {
  let fills = 0;
  const next = createTraceparentSource((octets) => octets.fill(++fills));
  assert.equal(next(), `00-${'01'.repeat(16)}-${'01'.repeat(8)}-00`);
  for (let i = 1; i < 64; i++) next();
  assert.equal(next(), `00-${'02'.repeat(16)}-${'02'.repeat(8)}-00`);
});

const TRACE_ID = '4bf92f3577b34da6a3ce929d0e0e4736';
const PARENT_ID = '00f067aa0ba902b7';
const TRACEPARENTS: ReadonlyArray<{ header: string; sampled: boolean | null }> = [
  { header: `00-${TRACE_ID}-${PARENT_ID}-00`, sampled: false },
  { header: `00-${TRACE_ID}-${PARENT_ID}-01`, sampled: true },
  { header: ` 00-${TRACE_ID}-${PARENT_ID}-02 `, sampled: false },
  { header: `cc-${TRACE_ID}-${PARENT_ID}-01-more`, sampled: true },
  { header: `00-${TRACE_ID}-${PARENT_ID}-01-more`, sampled: null },
  { header: `cc-${TRACE_ID}-${PARENT_ID}-01more`, sampled: null },
  { header: `ff-${TRACE_ID}-${PARENT_ID}-01`, sampled: null },
  { header: `00-${'0'.repeat(32)}-${PARENT_ID}-01`, sampled: null },
  { header: `00-${TRACE_ID}-${'0'.repeat(16)}-01`, sampled: null },
  { header: `00-${TRACE_ID.toUpperCase()}-${PARENT_ID}-01`, sampled: null },
  { header: `00-${TRACE_ID}-${PARENT_ID}`, sampled: null },
  { header: '', sampled: null },
];

for (const { header, sampled } of TRACEPARENTS) {
  test(`traceparent ${JSON.stringify(header)}`, () => {
    const expected = sampled === null ? null : { traceId: TRACE_ID, parentId: PARENT_ID, sampled };
    assert.deepEqual(parseTraceparent(header), expected);
  });
}
