import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatSpiffeId, parseSpiffeId } from '../../src/identity/spiffe.ts';

const accepted: [text: string, trustDomain: string, namespace: string, serviceAccount: string][] = [
  ['spiffe://cluster.local/ns/default/sa/web', 'cluster.local', 'default', 'web'],
  ['spiffe://td/ns/ns/sa/sa', 'td', 'ns', 'sa'],
  ['spiffe://example.com:project.svc.id.goog/ns/a-b/sa/c.d_e', 'example.com:project.svc.id.goog', 'a-b', 'c.d_e'],
];

for (const [text, trustDomain, namespace, serviceAccount] of accepted) {
  test(`${text} is an identity`, () => {
    assert.deepEqual(parseSpiffeId(text), { trustDomain, namespace, serviceAccount });
    assert.equal(formatSpiffeId({ trustDomain, namespace, serviceAccount }), text);
  });
}

const refused: [why: string, text: string][] = [
  ['empty', ''],
  ['no scheme', 'cluster.local/ns/a/sa/b'],
  ['another scheme', 'https://cluster.local/ns/a/sa/b'],
  ['a scheme in capitals', 'SPIFFE://cluster.local/ns/a/sa/b'],
  ['a part missing', 'spiffe://cluster.local/ns/a/sa'],
  ['a part too many', 'spiffe://cluster.local/ns/a/sa/b/c'],
  ['a slash at the end', 'spiffe://cluster.local/ns/a/sa/b/'],
  ['parts swapped', 'spiffe://cluster.local/sa/a/ns/b'],
  ['another key', 'spiffe://cluster.local/namespace/a/sa/b'],
  ['no trust domain', 'spiffe:///ns/a/sa/b'],
  ['no namespace', 'spiffe://cluster.local/ns//sa/b'],
  ['no service account', 'spiffe://cluster.local/ns/a/sa/'],
  ['white space', 'spiffe://cluster.local/ns/a b/sa/c'],
  ['a line feed at the end', 'spiffe://cluster.local/ns/a/sa/b\n'],
  ['a NUL', 'spiffe://cluster.local/ns/a/sa/b\0.evil'],
  ['a query', 'spiffe://cluster.local/ns/a/sa/b?x'],
  ['a fragment', 'spiffe://cluster.local/ns/a/sa/b#x'],
  ['percent encoding', 'spiffe://cluster.local/ns/a/sa/%62'],
  ['a user', 'spiffe://user@cluster.local/ns/a/sa/b'],
  ['dots for a namespace', 'spiffe://cluster.local/ns/../sa/b'],
  ['letters beyond ASCII', 'spiffe://cluster.local/ns/ä/sa/b'],
  ['a trust domain too long', `spiffe://${'a'.repeat(256)}/ns/a/sa/b`],
  ['too long', `spiffe://cluster.local/ns/a/sa/${'b'.repeat(2048)}`],
];

for (const [why, text] of refused) {
  test(`refused: ${why}`, () => {
    assert.throws(() => parseSpiffeId(text), { code: 'IDENTITY_INVALID' });
  });
}

test('whatever is written can be read again, and nothing else is written', () => {
  const part = fc.string({ unit: fc.constantFrom(...'aZ9.-_:/ %#?\0é'), maxLength: 6 });
  fc.assert(
    fc.property(part, part, part, (trustDomain, namespace, serviceAccount) => {
      const id = { trustDomain, namespace, serviceAccount };
      let text: string;
      try {
        text = formatSpiffeId(id);
      } catch (error) {
        assert.equal((error as { code: string }).code, 'IDENTITY_INVALID');
        return;
      }
      assert.deepEqual(parseSpiffeId(text), id);
    }),
    { numRuns: 2000 },
  );
});

test('any text is either an identity that is written the same, or refused', () => {
  const piece = fc.constantFrom('spiffe://', 'td', '/', '/ns/', '/sa/', 'a', 'ns', 'sa', '..', ':');
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.array(piece, { maxLength: 9 }).map((pieces) => pieces.join('')),
      ),
      (text) => {
        try {
          assert.equal(formatSpiffeId(parseSpiffeId(text)), text);
        } catch (error) {
          assert.equal((error as { code: string }).code, 'IDENTITY_INVALID');
        }
      },
    ),
    { numRuns: 2000 },
  );
});
