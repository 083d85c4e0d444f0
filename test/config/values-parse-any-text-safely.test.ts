import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Setting } from '../../src/config/setting.ts';
import { settings } from '../../src/config/settings.ts';
import { byteSize, cpuQuantity, duration, httpsAddress, integer } from '../../src/config/values.ts';

const rows = Object.values<Setting>(settings);

test('no type throws, whatever text it is given', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string({ unit: 'binary' }), fc.string({ unit: 'grapheme' }), fc.webUrl()), (text) => {
      for (const { type } of rows) {
        const value = type.parse(text);
        if (value !== undefined) JSON.stringify(type.dump(value));
      }
    }),
  );
});

test('durations add up', () => {
  const part = fc.record({
    amount: fc.nat(20),
    unit: fc.constantFrom(['ms', 1], ['s', 1000], ['m', 60_000], ['h', 3_600_000]),
  });
  fc.assert(
    fc.property(fc.array(part, { minLength: 1, maxLength: 4 }), (parts) => {
      const text = parts.map(({ amount, unit }) => `${amount}${unit[0]}`).join('');
      const expected = parts.reduce((sum, { amount, unit }) => sum + amount * Number(unit[1]), 0);
      assert.equal(duration('0', '365d').parse(text), expected);
    }),
  );
});

test('whole numbers are accepted exactly within their range', () => {
  fc.assert(
    fc.property(fc.integer(), fc.nat(), fc.nat(), (n, a, b) => {
      const [min, max] = a < b ? [a, b] : [b, a];
      assert.equal(integer(min, max).parse(String(n)), n >= min && n <= max ? n : undefined);
    }),
  );
});

test('sizes multiply by powers of 1024 and are accepted exactly within their range', () => {
  const units = fc.constantFrom(['', 1], ['Ki', 1024], ['Mi', 1024 ** 2], ['Gi', 1024 ** 3]);
  fc.assert(
    fc.property(fc.nat(), units, (n, [unit, factor]) => {
      const bytes = n * Number(factor);
      const accepted = bytes >= 1024 && bytes <= 1024 ** 4 ? bytes : undefined;
      assert.equal(byteSize('1Ki', '1024Gi').parse(`${n}${unit}`), accepted);
    }),
  );
});

test('milli-CPUs are thousandths', () => {
  fc.assert(fc.property(fc.nat(999_999), (n) => assert.equal(cpuQuantity.parse(`${n}m`), n / 1000)));
});

test('an address that was accepted is accepted again, unchanged', () => {
  fc.assert(
    fc.property(fc.domain(), fc.nat(65535), (host, port) => {
      const once = httpsAddress.parse(`${host}:${port}`);
      assert.equal(once?.slice(0, 8), 'https://');
      assert.equal(httpsAddress.parse(once ?? ''), once);
    }),
  );
});
