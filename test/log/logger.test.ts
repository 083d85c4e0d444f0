import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CulvertError } from '../../src/errors.ts';
import type { Fields } from '../../src/log/line.ts';
import { createLogger, type Logger } from '../../src/log/logger.ts';

/** A logger whose clock stands at 2026-08-01T12:00:00.000007Z, and the lines it wrote. */
function recorder(format: 'plain' | 'json', level = 'info'): { log: Logger; lines: string[] } {
  const lines: string[] = [];
  const now = () => Date.UTC(2026, 7, 1, 12) * 1000 + 7;
  return { log: createLogger({ format, level, write: (line) => lines.push(line), now }), lines };
}

const TIME = '2026-08-01T12:00:00.000007Z';

const events: readonly (readonly [what: string, message: string, fields: Fields, plain: string, json: string])[] = [
  ['no fields', 'session ready', {}, 'session ready', '"message":"session ready"'],
  [
    'strings are quoted, numbers and booleans bare, absent fields left out',
    'pod added',
    { name: 'a pod', count: 3, big: 9007199254740993n, ready: true, gone: null, never: undefined },
    'pod added\tname="a pod" count=3 big=9007199254740993 ready=true',
    '"message":"pod added","name":"a pod","count":3,"big":9007199254740993,"ready":"true"',
  ],
  [
    'bare texts',
    'listening',
    { addr: { bare: '[::]:15008' }, odd: { bare: 'a b' }, took: { bare: '1.5ms' } },
    'listening\taddr=[::]:15008 odd="a b" took=1.5ms',
    '"message":"listening","addr":"[::]:15008","odd":"a b","took":"1.5ms"',
  ],
  [
    'a number that JSON does not have is a string',
    'm',
    { rate: Number.NaN },
    'm\trate=NaN',
    '"message":"m","rate":"NaN"',
  ],
  [
    'an error says its causes once',
    'm',
    {
      error: new CulvertError('X', 'cannot reach the authority', {
        cause: new Error('request failed', { cause: new Error('no route: request failed') }),
      }),
    },
    'm\terror="cannot reach the authority: request failed: no route: request failed"',
    '"message":"m","error":"cannot reach the authority: request failed: no route: request failed"',
  ],
  [
    'other objects are their JSON',
    'm',
    { at: { port: 1 } },
    'm\tat="{\\"port\\":1}"',
    '"message":"m","at":"{\\"port\\":1}"',
  ],
  [
    'a message cannot start another line or field',
    'bad name "x"\nfake\tinfo\u001b[31m\u202e',
    {},
    'bad name "x"\\nfake\\tinfo\\u{1b}[31m\\u{202e}',
    '"message":"bad name \\"x\\"\\nfake\\tinfo\\u001b[31m\\u202e"',
  ],
  [
    'letters of other languages stay',
    'm',
    { name: 'zürich 東京 🙂' },
    'm\tname="zürich 東京 🙂"',
    '"message":"m","name":"zürich 東京 🙂"',
  ],
  ['a field name cannot forge one', 'm', { 'a=1 b': 2 }, 'm\t"a=1 b"=2', '"message":"m","a=1 b":2'],
];

for (const [what, message, fields, plain, json] of events) {
  test(`${what}, in both formats`, () => {
    const plainLog = recorder('plain');
    plainLog.log.warn('zds', message, fields);
    assert.deepEqual(plainLog.lines, [`${TIME}\twarn\tzds\t${plain}\n`]);
    const jsonLog = recorder('json');
    jsonLog.log.warn('zds', message, fields);
    assert.deepEqual(jsonLog.lines, [`{"level":"warn","time":"${TIME}","scope":"zds",${json}}\n`]);
    assert.doesNotThrow(() => JSON.parse(jsonLog.lines[0]!));
  });
}

test('spans stand behind the target, and in JSON as objects at the end', () => {
  for (const [format, line] of [
    ['plain', `${TIME}\tinfo\tzds:session{id=4}:pod{wl="demo/client"}\tup\tport=1\n`],
    [
      'json',
      `{"level":"info","time":"${TIME}","scope":"zds","message":"up","port":1,"session":{"id":4},"pod":{"wl":"demo/client"}}\n`,
    ],
  ] as const) {
    const { log, lines } = recorder(format);
    log.within('session', { id: 4 }).within('pod', { wl: 'demo/client' }).info('zds', 'up', { port: 1 });
    assert.deepEqual(lines, [line]);
  }
});

test('the level can be changed while running, also for loggers already handed out', () => {
  const { log, lines } = recorder('plain', 'info,access=off');
  const inner = log.within('pod', {});
  inner.debug('zds', 'one');
  log.setLevel('debug');
  assert.equal(log.level(), 'debug');
  assert.equal(inner.logs('debug', 'zds'), true);
  inner.debug('zds', 'two');
  log.trace('zds', 'three');
  log.setLevel('error');
  inner.warn('zds', 'four');
  log.error('zds', 'five');
  assert.deepEqual(
    lines.map((line) => line.trimEnd().split('\t')[3]),
    ['two', 'five'],
  );
  assert.throws(() => log.setLevel('zds'), { code: 'LOG_LEVEL_INVALID' });
  assert.equal(log.level(), 'error');
});

test('access records are filtered by target access at their own level', () => {
  const failed = {
    kind: 'failed',
    sourceAddress: '10.0.0.1:1',
    destinationAddress: '10.0.0.2:2',
    direction: 'inbound',
    error: 'ip mismatch: 10.0.0.2 != 10.0.0.3',
  } as const;
  const { log, lines } = recorder('plain', 'info,access=error');
  log.access(failed);
  assert.deepEqual(lines, []);
  log.setLevel('off,access=warn');
  log.access(failed);
  assert.deepEqual(lines, [
    `${TIME}\twarn\taccess\tconnection failed\tsrc.addr=10.0.0.1:1 dst.addr=10.0.0.2:2 direction="inbound" error="ip mismatch: 10.0.0.2 != 10.0.0.3"\n`,
  ]);
});

const pem = '-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIB\n-----END EC PRIVATE KEY-----';
const token = 'eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl';
const secrets: readonly (readonly [what: string, message: string, fields: Fields, plain: string])[] = [
  ['private keys', `have ${pem} here`, { error: new Error(pem) }, 'have *** here\terror="***"'],
  ['a private key cut short', 'm', { pem: pem.slice(0, 40) }, 'm\tpem="***"'],
  ['bearer tokens', 'm', { header: `authorization: Bearer ${token}` }, 'm\theader="authorization: Bearer ***"'],
  ['JSON web tokens', `sent ${token}`, {}, 'sent ***'],
  [
    'fields named as secrets',
    'm',
    { token: 'x', ca_token: 'y', password: 'z', tokens: 3 },
    'm\ttoken="***" ca_token="***" password="***" tokens=3',
  ],
];

for (const [what, message, fields, plain] of secrets) {
  test(`${what} are masked`, () => {
    const { log, lines } = recorder('plain');
    log.info('ca', message, fields);
    assert.deepEqual(lines, [`${TIME}\tinfo\tca\t${plain}\n`]);
  });
}

test('a log call never throws, whatever it is given', () => {
  const circular: Record<string, unknown> = { big: 1n };
  circular.self = circular;
  const { log, lines } = recorder('json');
  log.info('zds', 'odd', { circular });
  assert.equal((JSON.parse(lines[0]!) as { circular: string }).circular, '[object Object]');
});

test('an overlong event is cut to what one write carries whole, and says so', () => {
  for (const format of ['plain', 'json'] as const) {
    const { log, lines } = recorder(format);
    log.info('zds', 'short', { text: 'é'.repeat(9000) });
    log.info('zds', 'm'.repeat(9000), {});
    log.info('zds', 'many', Object.fromEntries(Array.from({ length: 2000 }, (_, index) => [`field${index}`, index])));
    for (const line of lines) {
      assert.ok(Buffer.byteLength(line) <= 4096);
      assert.equal(line.indexOf('\n'), line.length - 1);
    }
    assert.match(lines[0]!, /short.*é…"/);
    assert.match(lines[1]!, /mmm…/);
    assert.match(lines[2]!, /many.*truncated"?[=:]"?true/);
  }
});
