import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { createCaretaker } from '../../src/control/caretaker.ts';
import { alwaysHeld } from '../../src/control/lease.ts';
import { SERVICE_ENTRIES } from '../../src/control/objects/service-entry.ts';
import { createRejections, type Rejections } from '../../src/control/rejections.ts';
import { startStatusWriter } from '../../src/control/status/status-writer.ts';
import { KubeError } from '../../src/kube/api.ts';
import { fields } from '../../src/kube/object.ts';
import { eventually } from '../cni/support/eventually.ts';
import { meshUnderTest } from './support/mesh-under-test.ts';
import { serviceEntry } from './support/objects.ts';

const UNWRITABLE = 6;
const WRITABLE = 20;

/** Writes the addresses of ServiceEntries, of which the first cannot be written: the API server answers with that status, or with 0 to nobody. */
async function write(t: TestContext, status: number) {
  const { mesh, put } = meshUnderTest();
  for (let n = 0; n < UNWRITABLE; n++) await put(serviceEntry(`bad${n}`, { spec: { resolution: 'DNS' } }));
  for (let n = 0; n < WRITABLE; n++) await put(serviceEntry(`good${n}`, { spec: { resolution: 'DNS' } }));
  const written = new Set<string>();
  const attempts = new Map<string, number>();
  const warnings: { message: string; error: string }[] = [];
  let allowed = 'nobody';
  let isAway = status === 0;
  let underWay = 0;
  let underWayAtWarning = 0;
  const perform = async (path: string) => {
    underWay++;
    await new Promise((resolve) => setTimeout(resolve, path.includes('good') ? 5 : 1));
    underWay--;
    attempts.set(path, (attempts.get(path) ?? 0) + 1);
    if (isAway) throw new KubeError('KUBE_STALLED', 'no answer');
    if (path.includes('bad') && status !== 0 && !path.includes(allowed))
      throw new KubeError('KUBE_STATUS', `request ${status} is refused`, status);
    written.add(path);
  };
  const writer = startStatusWriter({
    api: { get: async () => ({}), apply: perform, mergePatch: perform },
    ...{ lease: alwaysHeld, statuses: mesh.statuses, rejections: createRejections(), revision: '' },
    log: {
      info() {},
      warn(_target, message, details) {
        warnings.push({ message, error: String(details?.error) });
        underWayAtWarning = Math.max(underWayAtWarning, underWay);
      },
    },
  });
  t.after(() => writer.close());
  const answer = () => {
    isAway = false;
  };
  const allow = (name: string) => {
    allowed = name;
  };
  return { answer, allow, put, written, attempts, warnings, underWayAtWarning: () => underWayAtWarning };
}

test('objects that cannot be written keep no other from its status, and are tried again', async (t) => {
  const { written, attempts, warnings, underWayAtWarning } = await write(t, 500);
  await eventually('a second attempt', () => attempts.size > 0 && Math.max(...attempts.values()) >= 2);
  assert.equal([...written].filter((path) => path.includes('good')).length, WRITABLE);
  assert.match(warnings[0]!.message, /the status of objects cannot be written/);
  assert.match(warnings[0]!.error, /ServiceEntry demo\/bad\d addresses: request 500 is refused/);
  assert.equal(underWayAtWarning(), 0, 'the attempt ends when all of it has');
  for (const path of written) assert.equal(attempts.get(path), 1, path);
});

test('what has failed again and again does not hold up what comes after it', async (t) => {
  const { put, allow, written, attempts, warnings } = await write(t, 500);
  const most = () => Math.max(0, ...attempts.values());
  for (let round = 1; round <= 2; round++) {
    await eventually(`attempt ${round}`, () => most() >= round);
    const failures = warnings.length;
    await put(serviceEntry(`late${round}`, { spec: { resolution: 'DNS' } }));
    // Its turn comes at once, and not with the next attempt at the others.
    await eventually('written', () => [...written].some((path) => path.includes(`late${round}`)));
    assert.ok(warnings.length <= failures + 1, warnings.map(({ error }) => error).join());
  }
  // Nor does what can be written at last take the turn of those that cannot.
  await put(serviceEntry('bad-late', { spec: { resolution: 'DNS' } }));
  await eventually('it has failed', () => [...attempts.keys()].some((path) => path.includes('bad-late')));
  allow('bad-late');
  await eventually('written', () => [...written].some((path) => path.includes('bad-late')));
  const before = most();
  await eventually('the others are tried again', () => most() > before);
});

test('a clock that is set back stops no attempt', async (t) => {
  const clock = Date.now;
  let setBackMs = 0;
  t.mock.method(Date, 'now', () => clock() - setBackMs);
  const { attempts } = await write(t, 500);
  const most = () => Math.max(0, ...attempts.values());
  await eventually('an attempt', () => most() >= 1);
  setBackMs = 86_400_000;
  await eventually('the next one', () => most() >= 2);
});

test('objects are left alone while nobody answers, and all are written then', async (t) => {
  const { written, attempts, warnings, answer } = await write(t, 0);
  await eventually('a failure', () => warnings.length > 0);
  assert.ok(attempts.size < UNWRITABLE + WRITABLE, 'not each of them waits for an answer');
  await eventually('another attempt', () => warnings.length > 1);
  answer();
  await eventually('all', () => written.size === UNWRITABLE + WRITABLE);
});

test('a status that is too large is not tried again at once', async (t) => {
  const { written, attempts, warnings } = await write(t, 413);
  await eventually('all', () => written.size === WRITABLE && warnings.length === UNWRITABLE);
  for (const { message, error } of warnings) assert.match(`${message}: ${error}`, /a status was not accepted.*413/);
  for (const count of attempts.values()) assert.equal(count, 1);
});

const WRONG = { kind: SERVICE_ENTRIES, key: 'demo/a', generation: 1, reason: 'no' };
const correct = (rejections: Rejections) =>
  rejections.apply([{ kind: SERVICE_ENTRIES, key: 'demo/a', before: null, after: {} }]);

for (const [what, begin, change, last] of [
  ['is corrected while it is being rejected', (r) => r.rejected(WRONG), correct, 0],
  [
    'becomes wrong again while its rejection is being taken away',
    (r) => {
      r.rejected(WRONG);
      correct(r);
    },
    (r) => r.rejected(WRONG),
    1,
  ],
] as [string, (r: Rejections) => void, (r: Rejections) => void, number][]) {
  test(`an object that ${what} ends up as it is`, async (t) => {
    const rejections = createRejections();
    /** How many conditions were written, each time. */
    const writes: number[] = [];
    const perform = async (_path: string, object: unknown) => {
      writes.push((fields(fields(object).status).conditions as unknown[]).length);
      if (writes.length > 1) return;
      await new Promise((resolve) => setImmediate(resolve));
      change(rejections);
      await new Promise((resolve) => setImmediate(resolve));
    };
    const writer = startStatusWriter({
      api: { get: async () => ({}), apply: perform, mergePatch: perform },
      ...{ lease: alwaysHeld, statuses: meshUnderTest().mesh.statuses, rejections, revision: '' },
      log: { info() {}, warn() {} },
    });
    t.after(() => writer.close());
    begin(rejections);
    await eventually('both were written', () => writes.length === 2);
    assert.equal(writes.at(-1), last);
  });
}

test('an attempt that fails and asks for another waits', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  let attempts = 0;
  const failures: number[] = [];
  const turn = () => new Promise((resolve) => setImmediate(resolve));
  const caretaker = createCaretaker(
    async () => {
      attempts++;
      caretaker.tend();
      await turn();
      throw new Error('no');
    },
    { everyMs: 60_000, failed: (_error, waitMs) => failures.push(waitMs) },
  );
  t.after(() => caretaker.close());
  caretaker.tend();
  assert.equal(attempts, 0, 'not before all is told that is being told');
  for (let n = 0; n < 10; n++) await turn();
  assert.equal(attempts, 1);
  assert.equal(failures.length, 1);
  t.mock.timers.tick(failures[0]! - 1);
  await turn();
  assert.equal(attempts, 1);
  t.mock.timers.tick(1);
  for (let n = 0; n < 10; n++) await turn();
  assert.equal(attempts, 2);
});

test('an object that is as wrong as before is no news', () => {
  const rejections = createRejections();
  const object = { kind: SERVICE_ENTRIES, key: 'demo/a', generation: 1, reason: 'no' };
  const verdicts = [
    rejections.rejected(object),
    // Its status was written.
    rejections.rejected({ ...object }),
    rejections.rejected({ ...object, generation: 2 }),
    rejections.rejected({ ...object, generation: 2, reason: 'not either' }),
  ];
  assert.deepEqual(verdicts, [true, false, true, true]);
  rejections.apply([{ kind: SERVICE_ENTRIES, key: 'demo/a', before: null, after: {} }]);
  assert.equal(rejections.rejected(object), true);
});
