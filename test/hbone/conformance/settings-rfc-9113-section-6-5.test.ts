import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FrameFlag, FrameType, SettingId } from '../../../src/hbone/frames.ts';
import { type HeaderField, HpackDecoder } from '../../../src/hbone/hpack.ts';
import { ConnectionUnderTest, connectTo, frame, settingsFrame } from '../connection/support/connection-under-test.ts';
import { answered, conformance, connectionError, established, type Rule, type Verdict } from './support/conformance.ts';

const {
  HEADER_TABLE_SIZE,
  ENABLE_PUSH,
  MAX_CONCURRENT_STREAMS,
  INITIAL_WINDOW_SIZE,
  MAX_FRAME_SIZE,
  MAX_HEADER_LIST_SIZE,
} = SettingId;
const ACK = answered('SETTINGS ACK');
const MAX = 0xffff_ffff;

type Entries = ReadonlyArray<readonly [id: number, value: number]>;

function rule(what: string, entries: Entries, verdict: Verdict, role?: Rule['role']): Rule {
  const shared = { section: '§6.5.2', what: `SETTINGS with ${what}`, steps: [settingsFrame(entries)], verdict };
  return role === undefined ? shared : { ...shared, role };
}

conformance([
  rule('no entry', [], ACK),
  rule('an unknown entry', [[0x99, 7]], ACK),
  rule('an unknown entry of id 0', [[0, MAX]], ACK),
  rule('HEADER_TABLE_SIZE 0', [[HEADER_TABLE_SIZE, 0]], ACK),
  rule('HEADER_TABLE_SIZE 2^32-1', [[HEADER_TABLE_SIZE, MAX]], ACK),
  rule('ENABLE_PUSH 0', [[ENABLE_PUSH, 0]], ACK),
  rule('ENABLE_PUSH 1', [[ENABLE_PUSH, 1]], ACK, 'server'),
  rule('ENABLE_PUSH 1', [[ENABLE_PUSH, 1]], connectionError('PROTOCOL_ERROR'), 'client'),
  rule('ENABLE_PUSH 2', [[ENABLE_PUSH, 2]], connectionError('PROTOCOL_ERROR')),
  rule('MAX_CONCURRENT_STREAMS 2^32-1', [[MAX_CONCURRENT_STREAMS, MAX]], ACK),
  rule('INITIAL_WINDOW_SIZE 0', [[INITIAL_WINDOW_SIZE, 0]], ACK),
  rule('INITIAL_WINDOW_SIZE 2^31-1', [[INITIAL_WINDOW_SIZE, 0x7fff_ffff]], ACK),
  rule('INITIAL_WINDOW_SIZE 2^31', [[INITIAL_WINDOW_SIZE, 0x8000_0000]], connectionError('FLOW_CONTROL_ERROR')),
  rule('MAX_FRAME_SIZE 16384', [[MAX_FRAME_SIZE, 16_384]], ACK),
  rule('MAX_FRAME_SIZE 16383', [[MAX_FRAME_SIZE, 16_383]], connectionError('PROTOCOL_ERROR')),
  rule('MAX_FRAME_SIZE 2^24-1', [[MAX_FRAME_SIZE, 0xff_ffff]], ACK),
  rule('MAX_FRAME_SIZE 2^24', [[MAX_FRAME_SIZE, 0x100_0000]], connectionError('PROTOCOL_ERROR')),
  rule('MAX_HEADER_LIST_SIZE 0, which only advises', [[MAX_HEADER_LIST_SIZE, 0]], ACK),
  rule(
    'a good value behind a bad one',
    [
      [MAX_FRAME_SIZE, 1],
      [MAX_FRAME_SIZE, 16_384],
    ],
    connectionError('PROTOCOL_ERROR'),
  ),
  {
    section: '§6.5.3',
    what: 'an acknowledgement that nobody waits for',
    steps: [frame(FrameType.SETTINGS, FrameFlag.ACK, 0)],
    verdict: answered(),
  },
]);

for (const role of ['server', 'client'] as const) {
  test(`RFC 9113 §6.5.3: a ${role} applies every entry in its order: windows`, () => {
    const { under, stream } = established(role);
    const { sendWindow } = stream;
    under.receive(
      settingsFrame([
        [INITIAL_WINDOW_SIZE, 0],
        [INITIAL_WINDOW_SIZE, 0x7fff_ffff],
        [INITIAL_WINDOW_SIZE, 70_000],
      ]),
    );
    assert.deepEqual(under.said(), ['SETTINGS ACK']);
    assert.equal(stream.sendWindow, sendWindow - 65_535 + 70_000);
  });

  test(`RFC 9113 §6.9.2: a ${role} ends the connection when an entry takes a window too far, whatever follows it`, () => {
    const { under, stream } = established(role);
    stream.sendWindow += 1;
    under.receive(
      settingsFrame([
        [INITIAL_WINDOW_SIZE, 0x7fff_ffff],
        [INITIAL_WINDOW_SIZE, 65_535],
      ]),
    );
    assert.deepEqual(
      under.said().map((text) => text.split(' (')[0]),
      ['GOAWAY FLOW_CONTROL_ERROR'],
    );
  });
}

/** Header blocks of a client, as they are on the wire. */
function blocksOf(under: ConnectionUnderTest, fields: readonly HeaderField[]): Buffer {
  under.connection.open(fields, under.recorder());
  return under.frames().find(({ type }) => type === FrameType.HEADERS)!.payload;
}

const FIELDS: readonly HeaderField[] = [...connectTo('10.0.0.1:80'), ['x', 'y'.repeat(50)]];

const TABLE_SIZES: ReadonlyArray<{ readonly sizes: readonly number[]; readonly updates: readonly number[] }> = [
  { sizes: [4096], updates: [] },
  { sizes: [8192], updates: [] },
  { sizes: [0], updates: [0] },
  { sizes: [100], updates: [100] },
  { sizes: [100, 0], updates: [0] },
  { sizes: [0, 100], updates: [0, 100] },
  { sizes: [0, 4096], updates: [0, 4096] },
  { sizes: [200, 50, 300, 100], updates: [50, 100] },
  { sizes: [0, 0xffff_ffff], updates: [0, 4096] },
];

for (const { sizes, updates } of TABLE_SIZES) {
  for (const together of [true, false]) {
    const how = together ? 'in one SETTINGS' : 'in SETTINGS of their own';
    test(`RFC 7541 §4.2: after HEADER_TABLE_SIZE ${sizes.join(', ')} ${how} a client says ${updates.join(', ') || 'nothing'}`, () => {
      const under = new ConnectionUnderTest('client').established();
      const decoder = new HpackDecoder({ maxTableSize: 4096, maxHeaderListSize: 65_536 });
      const read = (bytes: Buffer) => decoder.decode(bytes, 0, bytes.length);
      // Something is in the table.
      assert.deepEqual(read(blocksOf(under, connectTo('10.0.0.1:80'))), connectTo('10.0.0.1:80'));
      const entries: Entries = sizes.map((size) => [HEADER_TABLE_SIZE, size]);
      if (together) under.receive(settingsFrame(entries));
      else for (const entry of entries) under.receive(settingsFrame([entry]));
      under.frames();
      for (const size of sizes) decoder.setMaxTableSize(Math.min(size, 1 << 27));
      const bytes = blocksOf(under, FIELDS);
      assert.deepEqual(sizeUpdates(bytes), updates);
      // The decoder insists on the updates that the RFC demands.
      assert.deepEqual(read(bytes), FIELDS);
      assert.deepEqual(read(blocksOf(under, FIELDS)), FIELDS);
    });
  }
}

/** The table size updates at the start of a header block (RFC 7541 §6.3). */
function sizeUpdates(bytes: Buffer): number[] {
  const updates: number[] = [];
  let at = 0;
  while ((bytes[at]! & 0xe0) === 0x20) {
    let value = bytes[at++]! & 0x1f;
    if (value === 0x1f) {
      let shift = 0;
      let octet: number;
      do {
        octet = bytes[at++]!;
        value += (octet & 0x7f) << shift;
        shift += 7;
      } while (octet >= 0x80);
    }
    updates.push(value);
  }
  return updates;
}
