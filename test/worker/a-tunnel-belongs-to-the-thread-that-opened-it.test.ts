import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newAffinityTable, TunnelAffinity } from '../../src/worker/tunnel-affinity.ts';

const cases = [
  { what: 'a port that another thread has claimed', claims: [[2, 40_000]], asks: 1, owner: 2 },
  { what: 'a port of its own', claims: [[1, 40_000]], asks: 1, owner: 0 },
  { what: 'a port that nobody has claimed', claims: [[2, 40_001]], asks: 1, owner: 0 },
  { what: 'a port that was claimed twice', claims: [[2, 40_000], [3, 40_000]], asks: 1, owner: 3 }, // biome-ignore format: a row
  { what: 'the highest port', claims: [[2, 65_535]], asks: 1, port: 65_535, owner: 2 },
  { what: 'a thread beyond what a byte can number: its claims are void', claims: [[256, 40_000]], asks: 1, owner: 0 },
  {
    what: 'a thread beyond what a byte can number: it keeps what it accepts',
    claims: [[2, 40_000]],
    asks: 256,
    owner: 0,
  },
] as const;

for (const { what, claims, asks, owner, ...rest } of cases) {
  test(`the owner of ${what}`, () => {
    const table = newAffinityTable();
    for (const [thread, port] of claims) new TunnelAffinity(table, thread).claim(port);
    const port = 'port' in rest ? rest.port : 40_000;
    assert.equal(new TunnelAffinity(table, asks).otherOwner(port), owner);
  });
}
