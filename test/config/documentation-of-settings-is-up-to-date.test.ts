import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { DOCUMENT, renderConfiguration } from '../../src/config/document.ts';
import { settings } from '../../src/config/settings.ts';

test('docs/configuration.md is what the table gives (else run src/config/document.ts)', () => {
  assert.equal(readFileSync(DOCUMENT, 'utf8'), renderConfiguration());
});

test('every setting has its own variable', () => {
  const names = Object.values(settings).map(({ env }) => env);
  assert.equal(new Set(names).size, names.length);
});

test('every default is a value that would be accepted', () => {
  for (const row of Object.values(settings)) {
    if (row.default !== null) assert.notEqual(row.type.parse(row.default), undefined, row.env);
  }
});
