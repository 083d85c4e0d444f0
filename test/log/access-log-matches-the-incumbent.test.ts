import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { type AccessRecord, formatAccess } from '../../src/log/access.ts';
import { formatTimestamp } from '../../src/log/timestamp.ts';

const golden = (name: string) =>
  readFileSync(new URL(`golden/${name}`, import.meta.url), 'utf8')
    .trimEnd()
    .split('\n');

/** The record behind captured fields. */
function recordOf(message: string, field: (name: string) => string | undefined): AccessRecord {
  const text = (name: string) => field(name) ?? '';
  const direction = text('direction') as 'inbound' | 'outbound';
  const addresses = { sourceAddress: text('src.addr'), destinationAddress: text('dst.addr'), direction };
  if (message === 'connection failed') return { kind: 'failed', ...addresses, error: text('error') };
  return {
    kind: 'complete',
    ...addresses,
    sourceWorkload: text('src.workload'),
    sourceNamespace: text('src.namespace'),
    sourceIdentity: text('src.identity'),
    sourceCluster: text('src.cluster'),
    hboneAddress: text('dst.hbone_addr'),
    destinationService: text('dst.service'),
    destinationWorkload: text('dst.workload'),
    destinationNamespace: text('dst.namespace'),
    destinationIdentity: text('dst.identity'),
    destinationCluster: text('dst.cluster'),
    bytesSent: Number(text('bytes_sent')),
    bytesReceived: Number(text('bytes_recv')),
    durationMs: Number.parseInt(text('duration'), 10),
    error: text('error'),
  };
}

const micros = (timestamp: string) => Date.parse(`${timestamp.slice(0, 19)}Z`) * 1000 + Number(timestamp.slice(20, 26));

test('every captured plain line is reproduced byte for byte', () => {
  const lines = golden('access-log.txt');
  assert.equal(lines.length, 17);
  for (const line of lines) {
    const [time, , , message, fields] = line.split('\t') as [string, string, string, string, string];
    const values = new Map(
      [...fields.matchAll(/([\w.]+)=(?:"([^"]*)"|(\S+))/g)].map((match) => [match[1]!, match[2] ?? match[3]!]),
    );
    const record = recordOf(message, (name) => values.get(name));
    assert.equal(formatAccess(record, formatTimestamp(micros(time)), 'plain'), `${line}\n`);
  }
});

test('every captured JSON line is reproduced byte for byte', () => {
  const lines = golden('access-log-json.txt');
  assert.equal(lines.length, 4);
  for (const line of lines) {
    const values = JSON.parse(line) as Record<string, string | number>;
    const record = recordOf(String(values.message), (name) => values[name]?.toString());
    assert.equal(formatAccess(record, formatTimestamp(micros(String(values.time))), 'json'), `${line}\n`);
  }
});

const complete: AccessRecord = {
  kind: 'complete',
  sourceAddress: '10.0.0.1:40000',
  sourceWorkload: 'client',
  sourceNamespace: 'demo',
  sourceIdentity: '',
  sourceCluster: '',
  destinationAddress: '[2001:db8::1]:8080',
  hboneAddress: '',
  destinationService: '',
  destinationWorkload: '',
  destinationNamespace: '',
  destinationIdentity: '',
  destinationCluster: '',
  direction: 'outbound',
  bytesSent: 0,
  bytesReceived: 12345678901234,
  durationMs: 13.9,
  error: '',
};

const cases: readonly (readonly [what: string, record: AccessRecord, plain: string, json: string])[] = [
  [
    'a connection of which little is known has few fields',
    complete,
    'T\tinfo\taccess\tconnection complete\tsrc.addr=10.0.0.1:40000 src.workload="client" src.namespace="demo" dst.addr=[2001:db8::1]:8080 direction="outbound" bytes_sent=0 bytes_recv=12345678901234 duration="13ms"\n',
    '{"level":"info","time":"T","scope":"access","message":"connection complete","src.addr":"10.0.0.1:40000","src.workload":"client","src.namespace":"demo","dst.addr":"[2001:db8::1]:8080","direction":"outbound","bytes_sent":0,"bytes_recv":12345678901234,"duration":"13ms"}\n',
  ],
  [
    'an opened connection has no counters and is debug',
    { ...complete, kind: 'opened' },
    'T\tdebug\taccess\tconnection opened\tsrc.addr=10.0.0.1:40000 src.workload="client" src.namespace="demo" dst.addr=[2001:db8::1]:8080 direction="outbound"\n',
    '{"level":"debug","time":"T","scope":"access","message":"connection opened","src.addr":"10.0.0.1:40000","src.workload":"client","src.namespace":"demo","dst.addr":"[2001:db8::1]:8080","direction":"outbound"}\n',
  ],
  [
    'an authority that tries to forge a line stays one quoted value',
    { ...complete, hboneAddress: 'x:1" error="none\n2026-01-01T00:00:00.000000Z\tinfo' },
    'T\tinfo\taccess\tconnection complete\tsrc.addr=10.0.0.1:40000 src.workload="client" src.namespace="demo" dst.addr=[2001:db8::1]:8080 dst.hbone_addr="x:1\\" error=\\"none\\n2026-01-01T00:00:00.000000Z\\tinfo" direction="outbound" bytes_sent=0 bytes_recv=12345678901234 duration="13ms"\n',
    '{"level":"info","time":"T","scope":"access","message":"connection complete","src.addr":"10.0.0.1:40000","src.workload":"client","src.namespace":"demo","dst.addr":"[2001:db8::1]:8080","dst.hbone_addr":"x:1\\" error=\\"none\\n2026-01-01T00:00:00.000000Z\\tinfo","direction":"outbound","bytes_sent":0,"bytes_recv":12345678901234,"duration":"13ms"}\n',
  ],
];

for (const [what, record, plain, json] of cases) {
  test(what, () => {
    assert.equal(formatAccess(record, 'T', 'plain'), plain);
    assert.equal(formatAccess(record, 'T', 'json'), json);
  });
}

test('a record of huge hostile values still fits into one atomic write', () => {
  const hostile = '\u{202e}"\n'.repeat(3000);
  const sides = Object.fromEntries(
    Object.entries(complete).map(([name, value]) => [name, value === '' || name.endsWith('Address') ? hostile : value]),
  ) as unknown as AccessRecord;
  for (const format of ['plain', 'json'] as const) {
    const line = formatAccess(sides, formatTimestamp(1_800_000_000_000_000), format);
    assert.ok(Buffer.byteLength(line) <= 4096, `${Buffer.byteLength(line)} bytes`);
    assert.equal(line.indexOf('\n'), line.length - 1);
  }
});
