import assert from 'node:assert/strict';
import { test } from 'node:test';
import { extendFilter, formatFilter, LEVELS, levelsLogged, parseFilter } from '../../src/log/level-filter.ts';

const logged = (spec: string, target: string) => LEVELS[levelsLogged(parseFilter(spec), target) - 1] ?? 'off';

const decisions: readonly (readonly [spec: string, target: string, most: string])[] = [
  ['info', 'zds', 'info'],
  ['off', 'zds', 'off'],
  ['TRACE', 'zds', 'trace'],
  ['info,access=warn', 'access', 'warn'],
  ['info,access=warn', 'zds', 'info'],
  ['access=warn,info', 'access', 'warn'],
  ['zds=debug', 'zds', 'debug'],
  ['zds=debug', 'access', 'off'],
  ['info,proxy=warn,proxy::inbound=trace', 'proxy::inbound', 'trace'],
  ['info,proxy=warn,proxy::inbound=trace', 'proxy::outbound', 'warn'],
  ['info,proxy::inbound=trace,proxy=warn', 'proxy::inbound', 'trace'],
  ['info,ztunnel::proxy=debug', 'proxy::inbound', 'debug'],
  ['warn,ztunnel=debug', 'zds', 'debug'],
  ['info,hickory_server::server=off', 'dns', 'info'],
  [' info , access=off ', 'access', 'off'],
  ['info,debug', 'zds', 'debug'],
];

for (const [spec, target, most] of decisions) {
  test(`"${spec}" logs ${target} down to ${most}`, () => assert.equal(logged(spec, target), most));
}

for (const spec of ['', 'info,', 'access', 'loud', 'access=', 'access=loud', '=info', 'a b=info', 'zds=debug=info x']) {
  test(`"${spec}" is refused`, () => {
    assert.throws(() => parseFilter(spec), { name: 'CulvertError', code: 'LOG_LEVEL_INVALID' });
  });
}

test('adding to a filter replaces only what is named again', () => {
  const filter = extendFilter(parseFilter('info,access=warn'), 'access=debug,zds=trace');
  assert.equal(formatFilter(filter), 'access=debug,zds=trace,info');
});

test('the text of a filter gives the same filter again', () => {
  for (const spec of ['off', 'info', 'info,proxy=warn,proxy::inbound=trace', 'zds=debug']) {
    const filter = parseFilter(spec);
    assert.deepEqual(parseFilter(formatFilter(filter)), filter);
  }
  assert.equal(formatFilter({ directives: [] }), 'off');
});
