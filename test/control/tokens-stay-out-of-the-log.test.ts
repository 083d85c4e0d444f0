import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { openTokensFile } from '../../src/control/tokens-file.ts';
import { createLogger } from '../../src/log/logger.ts';
import { scratchFolder } from '../identity/scratch.ts';

const TOKEN = 'eyJhbGciOiJSUzI1NiJ9.c2VjcmV0';

test('a file of tokens that cannot be read is refused by line and column, never by what it says', async (t) => {
  const warnings: string[] = [];
  const onWarning = (warning: Error) => void warnings.push(warning.message);
  process.on('warning', onWarning);
  t.after(() => process.off('warning', onWarning));
  for (const [content, complaint] of [
    [`tokens:\n  - sha256: "${TOKEN}\n    namespace: a\n    b: [\n`, /not YAML: line \d, column \d+/],
    [`tokens:\n  - sha256: ${TOKEN}: x: y\n`, /not YAML: line 2, column \d+/],
    [`tokens:\n  - sha256: *${TOKEN}\n`, /not YAML/],
    [`tokens:\n  - sha256: !${TOKEN} x\n`, /token 1: sha256 is not 64 hexadecimal digits/],
    [`tokens:\n  - ${TOKEN}: x\n`, /token 1: a key is not known/],
    [`tokens: []\n${TOKEN}: x\n`, /a key is not known/],
    [`tokens:\n  - sha256: ${TOKEN}\n`, /token 1: sha256 is not 64 hexadecimal digits/],
    [TOKEN, /it needs a list/],
  ] as const) {
    const file = join(scratchFolder(t), 'tokens.yaml');
    writeFileSync(file, content);
    const lines: string[] = [];
    const log = createLogger({ format: 'plain', level: 'debug', write: (line) => void lines.push(line) });
    const failure = await openTokensFile(file, log).then(
      (opened) => opened.close(),
      (error: Error) => void lines.push(`${error.stack} ${error.cause ?? ''}`),
    );
    assert.equal(failure, undefined);
    assert.match(lines.join('\n'), complaint);
    assert.match(lines.join('\n'), /nobody is let in by a token until it can/);
    assert.doesNotMatch(lines.join('\n'), /eyJ/, content);
  }
  await new Promise((resolve) => setImmediate(resolve));
  assert.doesNotMatch(warnings.join('\n'), /eyJ/);
});
