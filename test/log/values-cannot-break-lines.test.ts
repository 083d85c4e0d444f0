import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { bare, jsonString, quoted, singleLine } from '../../src/log/escape.ts';

const anyText = fc.oneof(fc.string({ unit: 'binary' }), fc.string({ unit: 'grapheme' }), fc.string());
/** What a terminal or a line reader could take for structure: controls, line separators, direction marks. */
const DANGEROUS = /[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069\p{Cs}]/u;

test('no text leaves anything behind that could start a line or hide one', () => {
  fc.assert(
    fc.property(anyText, (text) => {
      for (const written of [quoted(text), bare(text), singleLine(text), jsonString(text)]) {
        assert.doesNotMatch(written, DANGEROUS);
      }
    }),
  );
});

test('a quoted text ends at its last quote', () => {
  fc.assert(fc.property(anyText, (text) => assert.match(quoted(text), /^"(?:[^"\\]|\\.)*"$/u)));
});

test('a bare text is quoted as soon as it holds a space, a quote or nothing', () => {
  fc.assert(fc.property(anyText, (text) => assert.match(bare(text), /^(?:[^\s"\\]+|"(?:[^"\\]|\\.)*")$/u)));
});

test('a JSON string means the text it was made from', () => {
  fc.assert(fc.property(anyText, (text) => assert.equal(JSON.parse(jsonString(text)), text)));
});
