import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EarlyBytes } from '../../src/relay/early-bytes.ts';

test('what comes byte by byte costs what it would in one piece', () => {
  const early = new EarlyBytes();
  assert.equal(early.bytes.length, 0);
  const bytes = Buffer.from(Array.from({ length: 256 * 1024 }, (_, i) => i % 251));
  for (let i = 0; i < bytes.length; i++) early.append(bytes.subarray(i, i + 1));
  assert.ok(bytes.equals(early.bytes));
  assert.ok(early.bytes.buffer.byteLength <= 2 * bytes.length);
});
