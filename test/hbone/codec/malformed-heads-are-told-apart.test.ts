import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  connectRequestHeaders,
  fieldValue,
  readForwardedNetwork,
  readRequestHead,
  readResponseHead,
  readTrailers,
  responseHeaders,
} from '../../../src/hbone/connect-headers.ts';
import type { HeaderField } from '../../../src/hbone/hpack.ts';

const METHOD: HeaderField = [':method', 'CONNECT'];
const AUTHORITY: HeaderField = [':authority', '10.0.0.1:80'];
const CONNECT = [METHOD, AUTHORITY];
const GET: readonly HeaderField[] = [
  [':method', 'GET'],
  [':scheme', 'https'],
  [':path', '/'],
];

/** `detail` is part of what the log says. */
const MALFORMED_REQUESTS: ReadonlyArray<{ rule: string; fields: readonly HeaderField[]; detail: string }> = [
  { rule: '§8.2: an empty name', fields: [...CONNECT, ['', 'x']], detail: 'without a name' },
  { rule: '§8.2: a name in upper case', fields: [...CONNECT, ['Baggage', 'x']], detail: '"Baggage" is not lower case' },
  { rule: '§8.2.1: a space in a name', fields: [...CONNECT, ['a b', 'x']], detail: 'names may not hold' },
  { rule: '§8.2.1: a colon within a name', fields: [...CONNECT, ['a:b', 'x']], detail: 'names may not hold' },
  { rule: '§8.2.1: a control character in a name', fields: [...CONNECT, ['a\n', 'x']], detail: '"a?"' },
  {
    rule: '§8.2.1: an octet beyond ASCII in a name',
    fields: [...CONNECT, ['\u00e9', 'x']],
    detail: 'names may not hold',
  },
  { rule: '§8.2.1: NUL in a value', fields: [...CONNECT, ['a', 'x\0y']], detail: 'values may not hold' },
  { rule: '§8.2.1: line feed in a value', fields: [...CONNECT, ['a', 'x\ny']], detail: 'values may not hold' },
  { rule: '§8.2.1: carriage return in a value', fields: [...CONNECT, ['a', 'x\ry']], detail: 'values may not hold' },
  { rule: '§8.2.1: DEL in a value', fields: [...CONNECT, ['a', 'x\x7fy']], detail: 'values may not hold' },
  { rule: '§8.2.1: white space before a value', fields: [...CONNECT, ['a', ' x']], detail: 'white space' },
  { rule: '§8.2.1: white space behind a value', fields: [...CONNECT, ['a', 'x\t']], detail: 'white space' },
  {
    rule: '§8.2.1: a line feed in :authority',
    fields: [METHOD, [':authority', 'a\nb']],
    detail: 'values may not hold',
  },
  { rule: '§8.2.2: connection', fields: [...CONNECT, ['connection', 'close']], detail: '"connection"' },
  { rule: '§8.2.2: proxy-connection', fields: [...CONNECT, ['proxy-connection', 'x']], detail: 'connection-specific' },
  { rule: '§8.2.2: keep-alive', fields: [...CONNECT, ['keep-alive', '5']], detail: 'connection-specific' },
  {
    rule: '§8.2.2: transfer-encoding',
    fields: [...CONNECT, ['transfer-encoding', 'chunked']],
    detail: 'connection-specific',
  },
  { rule: '§8.2.2: upgrade', fields: [...CONNECT, ['upgrade', 'h2c']], detail: 'connection-specific' },
  { rule: '§8.2.2: te other than trailers', fields: [...CONNECT, ['te', 'gzip']], detail: '"te"' },
  {
    rule: '§8.3: an unknown pseudo-header field',
    fields: [...CONNECT, [':protocol', 'websocket']],
    detail: '":protocol"',
  },
  { rule: '§8.3: a pseudo-header field of responses', fields: [...CONNECT, [':status', '200']], detail: '":status"' },
  { rule: '§8.3: a lone colon', fields: [...CONNECT, [':', 'x']], detail: '":"' },
  { rule: '§8.3: a pseudo-header field twice', fields: [METHOD, METHOD, AUTHORITY], detail: '":method" twice' },
  {
    rule: '§8.3: a pseudo-header field behind a regular one',
    fields: [METHOD, ['a', 'x'], AUTHORITY],
    detail: 'behind',
  },
  { rule: '§8.3.1: no :method', fields: [AUTHORITY], detail: 'without :method' },
  { rule: '§8.3.1: no field at all', fields: [], detail: 'without :method' },
  { rule: '§8.3.1: a :method that is no token', fields: [[':method', 'CON NECT'], AUTHORITY], detail: 'no method' },
  { rule: '§8.3.1: an empty :method', fields: [[':method', ''], AUTHORITY], detail: 'no method' },
  { rule: '§8.3.1: no :scheme', fields: [GET[0]!, GET[2]!], detail: ':scheme' },
  { rule: '§8.3.1: no :path', fields: [GET[0]!, GET[1]!], detail: ':path' },
  { rule: '§8.3.1: an empty :path', fields: [GET[0]!, GET[1]!, [':path', '']], detail: ':path' },
  { rule: '§8.3.1: host names another entity', fields: [...CONNECT, ['host', '10.0.0.2:80']], detail: 'differs' },
  { rule: '§8.5: CONNECT with :scheme', fields: [...CONNECT, [':scheme', 'https']], detail: ':scheme' },
  { rule: '§8.5: CONNECT with :path', fields: [...CONNECT, [':path', '/']], detail: ':path' },
  { rule: '§8.5: CONNECT without :authority', fields: [METHOD], detail: ':authority' },
  { rule: '§8.5: CONNECT with an empty :authority', fields: [METHOD, [':authority', '']], detail: ':authority' },
  { rule: '§8.2: the last of many fields counts too', fields: [...CONNECT, ...many(100), ['X', 'x']], detail: '"X"' },
];

for (const { rule, fields, detail } of MALFORMED_REQUESTS) {
  test(`malformed request, RFC 9113 ${rule}`, () => {
    const head = readRequestHead(fields);
    assert.equal(head.kind, 'malformed');
    assert.ok(head.kind === 'malformed' && head.detail.includes(detail), JSON.stringify(head));
  });
}

const ACCEPTED_REQUESTS: ReadonlyArray<{ rule: string; fields: readonly HeaderField[] }> = [
  { rule: '§8.5: method and authority', fields: CONNECT },
  { rule: '§8.3: pseudo-header fields in any order', fields: [AUTHORITY, METHOD] },
  { rule: '§8.2: repeated regular fields', fields: [...CONNECT, ['baggage', 'a=1'], ['baggage', 'b=2']] },
  { rule: '§8.2.1: empty values', fields: [...CONNECT, ['baggage', '']] },
  { rule: '§8.2.1: inner white space and obs-text', fields: [...CONNECT, ['a', 'x \t\u00e9y']] },
  { rule: '§8.2.2: te: trailers', fields: [...CONNECT, ['te', 'trailers']] },
  { rule: '§8.3.1: host that repeats :authority', fields: [...CONNECT, ['host', '10.0.0.1:80']] },
  { rule: '§8.3.1: host that repeats :authority without the port', fields: [...CONNECT, ['host', '10.0.0.1']] },
];

for (const { rule, fields } of ACCEPTED_REQUESTS) {
  test(`CONNECT, RFC 9113 ${rule}`, () => {
    assert.deepEqual(readRequestHead(fields), {
      kind: 'connect',
      authority: '10.0.0.1:80',
      headers: fields.filter(([name]) => !name.startsWith(':')),
    });
  });
}

for (const method of ['GET', 'POST', 'connect', 'OPTIONS', 'x!']) {
  test(`a request with method ${method} is well-formed and no CONNECT`, () => {
    assert.deepEqual(readRequestHead([[':method', method], ...GET.slice(1), AUTHORITY]), {
      kind: 'other-method',
      method,
    });
  });
}

const RESPONSES: ReadonlyArray<{ rule: string; fields: readonly HeaderField[]; head: object }> = [
  { rule: '§8.3.2: 200', fields: [[':status', '200']], head: { kind: 'response', status: 200, headers: [] } },
  {
    rule: '§8.3.2: 401 with a field',
    fields: [
      [':status', '401'],
      ['a', 'b'],
    ],
    head: { kind: 'response', status: 401, headers: [['a', 'b']] },
  },
  { rule: '§8.1: 100 is interim', fields: [[':status', '100']], head: { kind: 'interim', status: 100 } },
  { rule: '§8.1: 103 is interim', fields: [[':status', '103']], head: { kind: 'interim', status: 103 } },
];

for (const { rule, fields, head } of RESPONSES) {
  test(`response, RFC 9113 ${rule}`, () => assert.deepEqual(readResponseHead(fields), head));
}

const MALFORMED_RESPONSES: ReadonlyArray<{ rule: string; fields: readonly HeaderField[] }> = [
  { rule: '§8.3.2: no :status', fields: [['a', 'b']] },
  ...['', '20', '2000', 'abc', '+20', '20x', '020', ' 200', '2 0'].map((status) => ({
    rule: `§8.3.2: :status "${status}"`,
    fields: [[':status', status] as const],
  })),
  { rule: '§8.3: a pseudo-header field of requests', fields: [[':status', '200'], METHOD] },
  {
    rule: '§8.3: :status twice',
    fields: [
      [':status', '200'],
      [':status', '200'],
    ],
  },
  { rule: '§8.6: 101', fields: [[':status', '101']] },
  {
    rule: '§8.2: a name in upper case',
    fields: [
      [':status', '200'],
      ['A', 'b'],
    ],
  },
];

for (const { rule, fields } of MALFORMED_RESPONSES) {
  test(`malformed response, RFC 9113 ${rule}`, () => assert.equal(readResponseHead(fields).kind, 'malformed'));
}

test('RFC 9113 §8.1: trailers hold regular fields only', () => {
  assert.deepEqual(readTrailers([['a', 'b']]), { kind: 'trailers', headers: [['a', 'b']] });
  assert.deepEqual(readTrailers([]), { kind: 'trailers', headers: [] });
  assert.equal(readTrailers([[':status', '200']]).kind, 'malformed');
  assert.equal(readTrailers([['A', 'b']]).kind, 'malformed');
});

test('what a log shows of a peer is short and printable', () => {
  const head = readRequestHead([...CONNECT, [`\x1b[31m${'A'.repeat(1000)}`, 'x']]);
  assert.ok(
    head.kind === 'malformed' && head.detail.length < 200 && /^[ -~]*$/.test(head.detail),
    JSON.stringify(head),
  );
});

test('the CONNECT that peers expect: these fields in this order, no :scheme, no :path', () => {
  const request = { authority: '[::1]:80', baggage: '', forwarded: 'for="1.2.3.4:5"', traceparent: '00-a-b-00' };
  const fields: HeaderField[] = [
    METHOD,
    [':authority', '[::1]:80'],
    ['baggage', ''],
    ['forwarded', 'for="1.2.3.4:5"'],
    ['traceparent', '00-a-b-00'],
  ];
  assert.deepEqual(connectRequestHeaders({ ...request, forwardedNetwork: null }), fields);
  const inner = connectRequestHeaders({ ...request, forwardedNetwork: 'net-1' });
  assert.deepEqual(inner, [...fields, ['x-forwarded-network', 'net-1']]);
  assert.equal(readRequestHead(inner).kind, 'connect');
});

test('an answer has its status, and baggage when given', () => {
  assert.deepEqual(responseHeaders(503, null), [[':status', '503']]);
  assert.deepEqual(responseHeaders(200, 'a=b'), [
    [':status', '200'],
    ['baggage', 'a=b'],
  ]);
});

test('RFC 9110 §5.3: fields of one name are one list', () => {
  const fields: HeaderField[] = [
    ['baggage', 'a=1'],
    ['x', 'y'],
    ['baggage', 'b=2'],
  ];
  assert.equal(fieldValue(fields, 'baggage'), 'a=1, b=2');
  assert.equal(fieldValue(fields, 'x'), 'y');
  assert.equal(fieldValue(fields, 'forwarded'), null);
});

const NETWORKS: ReadonlyArray<{ value: string | null; network: string | null }> = [
  { value: null, network: null },
  { value: '', network: null },
  { value: '  ', network: null },
  { value: 'net-1', network: 'net-1' },
  { value: ' Net-1\t', network: 'Net-1' },
  { value: 'x'.repeat(254), network: null },
];

for (const { value, network } of NETWORKS) {
  test(`x-forwarded-network ${JSON.stringify(value?.slice(0, 10) ?? null)} names ${network}`, () => {
    assert.equal(readForwardedNetwork(value === null ? [] : [['x-forwarded-network', value]]), network);
  });
}

function many(count: number): HeaderField[] {
  return Array.from({ length: count }, (_, i) => [`x-${i}`, 'y'] as const);
}
