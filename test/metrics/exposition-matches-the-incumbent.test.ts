import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { expose } from '../../src/metrics/exposition.ts';
import { BUILD, SOCKETS_OPEN, WORKLOAD_MANAGER } from '../../src/metrics/families.ts';
import type { Family } from '../../src/metrics/family.ts';
import { createRegistry } from '../../src/metrics/registry.ts';
import { createTrafficCounters } from '../../src/metrics/traffic.ts';
import type { ResponseFlag, TrafficLabels } from '../../src/metrics/traffic-labels.ts';
import { createTrafficStore } from '../../src/metrics/traffic-store.ts';
import { workload } from './labels.ts';

const golden = readFileSync(new URL('golden/metrics.txt', import.meta.url), 'utf8');

interface Captured {
  name: string;
  labels: Map<string, string>;
  value: number;
}

const captured: Captured[] = golden
  .split('\n')
  .filter((line) => /^[a-z]/.test(line))
  .map((line) => {
    const [, name, labels = '', value] = /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line) as unknown as [
      string,
      string,
      string,
      string,
    ];
    return {
      name,
      labels: new Map([...labels.matchAll(/(\w+)="([^"]*)"/g)].map((match) => [match[1]!, match[2]!])),
      value: Number(value),
    };
  });

const samplesOf = (name: string) => captured.filter((sample) => sample.name === name);

/** The lines of the families with these names, comments in order and samples sorted: the incumbent's order is by hash. */
function linesOf(text: string, wanted: RegExp): { comments: string[]; samples: string[] } {
  const lines = text.split('\n').filter((line) => wanted.test(line.replace(/^# (?:HELP|TYPE|UNIT) /, '')));
  return {
    comments: lines.filter((line) => line.startsWith('#')),
    samples: lines.filter((line) => !line.startsWith('#')).sort(),
  };
}

/** What telemetry knew when it made these labels. */
function trafficLabelsOf({ labels }: Captured): TrafficLabels {
  const text = (name: string) => labels.get(name)!.replace(/^unknown$/, '');
  const side = (prefix: 'source' | 'destination') =>
    workload(text(`${prefix}_workload`), {
      canonicalName: text(`${prefix}_canonical_service`),
      canonicalRevision: text(`${prefix}_canonical_revision`),
      namespace: text(`${prefix}_workload_namespace`),
      clusterId: text(`${prefix}_cluster`),
      region: text(`${prefix}_region`),
      zone: text(`${prefix}_zone`),
      identity: text(`${prefix}_principal`),
    });
  const service = text('destination_service');
  return {
    reporter: text('reporter') as 'source' | 'destination',
    source: side('source'),
    destination: side('destination'),
    service:
      service === ''
        ? null
        : {
            hostname: service,
            name: text('destination_service_name'),
            namespace: text('destination_service_namespace'),
          },
    sourcePrincipal: text('source_principal'),
    mutualTls: text('connection_security_policy') === 'mutual_tls',
    sourceApp: null,
    isShared: true,
  };
}

const identityOf = ({ labels }: Captured) => [...labels].filter(([name]) => name !== 'response_flags').join('|');

test('traffic counted like the captured traffic is exposed in the captured lines', () => {
  const counters = createTrafficCounters();
  for (const opened of samplesOf('istio_tcp_connections_opened_total')) {
    const same = (name: string) => samplesOf(name).filter((sample) => identityOf(sample) === identityOf(opened));
    const handles = Array.from({ length: opened.value }, () => counters.open(trafficLabelsOf(opened)));
    assert.equal(new Set(handles).size, 1);
    counters.received(handles[0]!, same('istio_tcp_received_bytes_total')[0]!.value);
    counters.sent(handles[0]!, same('istio_tcp_sent_bytes_total')[0]!.value);
    for (const closed of same('istio_tcp_connections_closed_total')) {
      const flag = closed.labels.get('response_flags') as ResponseFlag;
      for (let at = 0; at < closed.value; at++) counters.close(handles.pop()!, flag);
    }
  }
  const registry = createRegistry();
  createTrafficStore(registry).merge('worker-1', structuredClone(counters.report()), 0);
  const text = [...expose(registry)].join('');
  const wanted = /^istio_tcp_(?:connections_|received_|sent_)/;
  const expected = linesOf(golden, wanted);
  assert.equal(expected.samples.length, 51);
  assert.deepEqual(linesOf(text, wanted), expected);
});

test('the other families that this agent has are exposed in the captured lines', () => {
  const registry = createRegistry();
  const families: readonly Family[] = [BUILD, SOCKETS_OPEN, ...Object.values(WORKLOAD_MANAGER)];
  for (const family of families) {
    for (const { labels, value } of samplesOf(family.type === 'counter' ? `${family.name}_total` : family.name)) {
      const values = family.labels.map((name) => labels.get(name)!.replace(/^unknown$/, ''));
      if (family.type === 'counter') registry.counter(family).add(value, ...values);
      else registry.gauge(family).set(value, ...values);
    }
  }
  const wanted = /^(?:istio_build|istio_tcp_sockets|workload_manager)/;
  const expected = linesOf(golden, wanted);
  assert.equal(expected.samples.length, 7);
  assert.deepEqual(linesOf([...expose(registry)].join(''), wanted), expected);
});

test('a unit is shown as in the captured xds family', () => {
  const registry = createRegistry();
  const family: Family = {
    name: 'istio_xds_message_bytes',
    type: 'counter',
    help: 'Total number of bytes received (unstable).',
    labels: ['url'],
    unit: 'bytes',
  };
  for (const { labels, value } of samplesOf('istio_xds_message_bytes_total')) {
    registry.counter(family).add(value, labels.get('url')!);
  }
  const wanted = /^istio_xds_message_bytes/;
  assert.deepEqual(linesOf([...expose(registry)].join(''), wanted), linesOf(golden, wanted));
});
