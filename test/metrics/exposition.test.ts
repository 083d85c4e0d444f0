import assert from 'node:assert/strict';
import { test } from 'node:test';
import { expose } from '../../src/metrics/exposition.ts';
import * as families from '../../src/metrics/families.ts';
import type { Family } from '../../src/metrics/family.ts';
import { registerProcessMetrics } from '../../src/metrics/process-metrics.ts';
import { createRegistry } from '../../src/metrics/registry.ts';

const textOf = (registry: ReturnType<typeof createRegistry>) => [...expose(registry)].join('');

const requests: Family = { name: 'culvert_requests', type: 'counter', help: 'Requests (unstable).', labels: ['path'] };
const level: Family = { name: 'culvert_level', type: 'gauge', help: 'Level (unstable).', labels: [] };

test('an empty registry is only the end', () => assert.equal(textOf(createRegistry()), '# EOF\n'));

test('families without samples are left out, those without labels start at zero', () => {
  const registry = createRegistry();
  registry.counter(requests);
  registry.gauge(level);
  assert.equal(
    textOf(registry),
    '# HELP culvert_level Level (unstable).\n# TYPE culvert_level gauge\nculvert_level 0\n# EOF\n',
  );
});

const values: readonly (readonly [value: string, printed: string])[] = [
  ['/a', '/a'],
  ['', 'unknown'],
  ['say "hi"', 'say \\"hi\\"'],
  ['C:\\x', 'C:\\\\x'],
  ['two\nlines', 'two\\nlines'],
  ['x"} 1\n# EOF\n', 'x\\"} 1\\n# EOF\\n'],
  ['zürich', 'zürich'],
];

for (const [value, printed] of values) {
  test(`label value ${JSON.stringify(value)} is printed as ${JSON.stringify(printed)}`, () => {
    const registry = createRegistry();
    registry.counter(requests).add(2, value);
    assert.equal(
      textOf(registry),
      `# HELP culvert_requests Requests (unstable).\n# TYPE culvert_requests counter\nculvert_requests_total{path="${printed}"} 2\n# EOF\n`,
    );
  });
}

const numbers: readonly (readonly [value: number, printed: string])[] = [
  [0, '0'],
  [12345678901234, '12345678901234'],
  [0.022496063, '0.022496063'],
  [1e21, '1e+21'],
  [-1.5, '-1.5'],
  [Number.NaN, 'NaN'],
  [Number.POSITIVE_INFINITY, '+Inf'],
  [Number.NEGATIVE_INFINITY, '-Inf'],
];

for (const [value, printed] of numbers) {
  test(`${value} is printed as ${printed}`, () => {
    const registry = createRegistry();
    registry.gauge(level).set(value);
    assert.match(textOf(registry), new RegExp(`\\nculvert_level ${printed.replace('+', '\\+')}\\n`));
  });
}

test('a large exposition comes in chunks of whole lines', () => {
  const registry = createRegistry();
  for (let at = 0; at < 5000; at++) registry.counter(requests).add(at, `/${at}`);
  const chunks = [...expose(registry)];
  assert.ok(chunks.length > 3);
  assert.ok(chunks.every((chunk) => chunk.endsWith('\n') && chunk.length < 34_000));
  assert.equal(chunks.join('').match(/^culvert_requests_total/gm)?.length, 5000);
  assert.equal(chunks.join('').match(/^# HELP/gm)?.length, 1);
});

const bad: readonly (readonly [what: string, family: Family])[] = [
  ['a name with a dash', { ...requests, name: 'culvert-requests' }],
  ['a counter that says _total itself', { ...requests, name: 'culvert_requests_total' }],
  ['a label with a capital', { ...requests, labels: ['Path'] }],
  ['a new metric that is not called unstable', { ...requests, help: 'Requests.' }],
  ['a unit that the name does not end in', { ...requests, unit: 'bytes' }],
];

for (const [what, family] of bad) {
  test(`${what} is refused`, () => {
    assert.throws(() => createRegistry().counter(family), { code: 'METRIC_INVALID' });
  });
}

test('one name cannot be two things, and takes as many values as it has labels', () => {
  const registry = createRegistry();
  const counter = registry.counter(requests);
  assert.equal(registry.counter({ ...requests }), counter);
  assert.throws(() => registry.gauge({ ...requests, type: 'gauge' }), { code: 'METRIC_INVALID' });
  assert.throws(() => registry.gauge(requests), { code: 'METRIC_INVALID' });
  assert.throws(() => registry.counter({ ...requests, labels: ['verb'] }), { code: 'METRIC_INVALID' });
  assert.throws(() => registry.computed(requests, () => []), { code: 'METRIC_INVALID' });
  assert.throws(() => counter.add(1), { code: 'METRIC_INVALID' });
  assert.throws(() => counter.add(1, 'a', 'b'), { code: 'METRIC_INVALID' });
});

test('a gauge is the sum of its threads, and a thread that goes leaves no rest', () => {
  const registry = createRegistry();
  const gauge = registry.gauge({ ...requests, type: 'gauge' });
  gauge.set(1, '/a');
  gauge.contribute('worker-1', 0.1, '/a');
  gauge.contribute('worker-2', 0.2, '/a');
  gauge.contribute('worker-2', 4, '/b');
  assert.match(textOf(registry), /path="\/a"} 1\.3\n.*path="\/b"} 4\n/);
  gauge.contribute('worker-1', null, '/a');
  gauge.contribute('worker-2', null, '/a');
  gauge.contribute('worker-2', null, '/b');
  assert.match(textOf(registry), /path="\/a"} 1\n# EOF/);
});

test('every family of the agent can be registered', () => {
  const registry = createRegistry();
  for (const entry of Object.values(families)) {
    for (const family of 'name' in entry ? [entry as Family] : (Object.values(entry) as Family[])) {
      if (family.type === 'counter') registry.counter(family);
      else registry.gauge(family);
    }
  }
});

test('process metrics are those of this process', () => {
  const registry = createRegistry();
  registerProcessMetrics(registry, '1.27.0');
  const text = textOf(registry);
  const value = (name: string) => Number(new RegExp(`^${name} (.*)$`, 'm').exec(text)?.[1]);
  assert.ok(value('process_open_fds') > 3 && value('process_open_fds') < value('process_max_fds'));
  assert.ok(value('process_resident_memory_bytes') > 10e6);
  assert.ok(value('process_cpu_seconds_total') > 0);
  assert.ok(Math.abs(value('process_start_time_seconds') + process.uptime() - Date.now() / 1000) < 1);
  assert.match(text, /^istio_build\{component="ztunnel",tag="1\.27\.0"\} 1$/m);
});

test('a histogram counts in each bucket what is below its bound', () => {
  const registry = createRegistry();
  const delays = registry.histogram({
    name: 'culvert_delay_seconds',
    type: 'histogram',
    help: 'Delays (unstable).',
    labels: ['kind'],
    unit: 'seconds',
    buckets: [0.1, 1],
  });
  for (const value of [0.05, 0.1, 0.5, 7]) delays.observe(value, 'a');
  assert.equal(
    textOf(registry),
    `# HELP culvert_delay_seconds Delays (unstable).
# TYPE culvert_delay_seconds histogram
# UNIT culvert_delay_seconds seconds
culvert_delay_seconds_bucket{kind="a",le="0.1"} 2
culvert_delay_seconds_bucket{kind="a",le="1"} 3
culvert_delay_seconds_bucket{kind="a",le="+Inf"} 4
culvert_delay_seconds_sum{kind="a"} 7.65
culvert_delay_seconds_count{kind="a"} 4
# EOF
`,
  );
});

test('a histogram without labels is there from the start', () => {
  const registry = createRegistry();
  registry.histogram({ name: 'delay', type: 'histogram', help: 'Delays (unstable).', labels: [], buckets: [1] });
  assert.match(
    textOf(registry),
    /delay_bucket\{le="1"\} 0\ndelay_bucket\{le="\+Inf"\} 0\ndelay_sum 0\ndelay_count 0\n/,
  );
});

test('a counter with a name of somebody else keeps that name', () => {
  const registry = createRegistry();
  registry.counter({ name: 'pilot_pushes', type: 'unknown', help: 'Pushes (unstable).', labels: [] }).add(3);
  assert.match(textOf(registry), /# TYPE pilot_pushes unknown\npilot_pushes 3\n/);
});

for (const buckets of [undefined, [], [1, 1], [2, 1]]) {
  test(`a histogram with the buckets ${buckets} is refused`, () => {
    const family: Family = { name: 'delay', type: 'histogram', help: 'unstable', labels: [] };
    assert.throws(() => createRegistry().histogram(buckets === undefined ? family : { ...family, buckets }), {
      code: 'METRIC_INVALID',
    });
  });
}
