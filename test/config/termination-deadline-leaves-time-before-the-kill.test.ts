import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Environment } from '../../src/config/config.ts';
import { load } from './load.ts';

const PERIOD = 'TERMINATION_GRACE_PERIOD_SECONDS';

const cases: [env: Environment, seconds: number][] = [
  [{}, 5],
  [{ [PERIOD]: '0' }, 1],
  [{ [PERIOD]: '1' }, 1],
  [{ [PERIOD]: '2' }, 1],
  [{ [PERIOD]: '3' }, 2],
  [{ [PERIOD]: '10' }, 9],
  [{ [PERIOD]: '11' }, 6],
  [{ [PERIOD]: '30' }, 25],
  [{ [PERIOD]: '30', CONNECTION_TERMINATION_DEADLINE: '7s' }, 7],
  [{ CONNECTION_TERMINATION_DEADLINE: '0' }, 0],
];

for (const [env, seconds] of cases) {
  test(`deadline of ${seconds} s with ${JSON.stringify(env)}`, async () => {
    assert.equal((await load(env)).terminationDeadline, seconds * 1000);
  });
}
