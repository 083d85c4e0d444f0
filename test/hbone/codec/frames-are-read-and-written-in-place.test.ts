import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  CLIENT_PREFACE,
  FRAME_HEADER_SIZE,
  FrameFlag,
  FrameType,
  frameFlags,
  frameLength,
  frameStreamId,
  frameType,
  headersSize,
  readUint16,
  readUint31,
  readUint32,
  SettingId,
  writeFrameHeader,
  writeGoAway,
  writeHeaders,
  writePing,
  writeRstStream,
  writeSettings,
  writeSettingsAck,
  writeWindowUpdate,
} from '../../../src/hbone/frames.ts';
import { ErrorCode } from '../../../src/hbone/http-error.ts';
import { octets, toHex } from './support/hex.ts';

const WRITTEN: ReadonlyArray<{ title: string; write: (out: Uint8Array, offset: number) => number; octets: string }> = [
  {
    title: '§4.1: a frame header',
    write: (out, offset) => writeFrameHeader(out, offset, 0x123456, FrameType.DATA, FrameFlag.END_STREAM, 0x7abbccdd),
    octets: '123456 00 01 7abbccdd',
  },
  {
    title: '§4.1: a frame header with the reserved bit 0',
    write: (out, offset) => writeFrameHeader(out, offset, 1, FrameType.DATA, 0, 0xffffffff),
    octets: '000001 00 00 7fffffff',
  },
  {
    title: '§6.4: RST_STREAM',
    write: (out, offset) => writeRstStream(out, offset, 5, ErrorCode.CONNECT_ERROR),
    octets: '000004 03 00 00000005 0000000a',
  },
  {
    title: '§6.5: SETTINGS',
    write: (out, offset) =>
      writeSettings(out, offset, [
        [SettingId.ENABLE_PUSH, 0],
        [SettingId.HEADER_TABLE_SIZE, 0xffffffff],
      ]),
    octets: '00000c 04 00 00000000 0002 00000000 0001 ffffffff',
  },
  {
    title: '§6.5: SETTINGS without a setting',
    write: (out, offset) => writeSettings(out, offset, []),
    octets: '000000 04 00 00000000',
  },
  { title: '§6.5.3: acknowledgement of SETTINGS', write: writeSettingsAck, octets: '000000 04 01 00000000' },
  {
    title: '§6.7: PING',
    write: (out, offset) => writePing(out, offset, false, octets('ff 0102030405060708'), 1),
    octets: '000008 06 00 00000000 0102030405060708',
  },
  {
    title: '§6.7: answer to a PING',
    write: (out, offset) => writePing(out, offset, true, octets('0102030405060708'), 0),
    octets: '000008 06 01 00000000 0102030405060708',
  },
  {
    title: '§6.8: GOAWAY',
    write: (out, offset) => writeGoAway(out, offset, 0x7fffffff, ErrorCode.NO_ERROR, ''),
    octets: '000008 07 00 00000000 7fffffff 00000000',
  },
  {
    title: '§6.8: GOAWAY with debug data',
    write: (out, offset) => writeGoAway(out, offset, 3, ErrorCode.ENHANCE_YOUR_CALM, 'flood'),
    octets: '00000d 07 00 00000000 00000003 0000000b 666c6f6f64',
  },
  {
    title: '§6.9: WINDOW_UPDATE',
    write: (out, offset) => writeWindowUpdate(out, offset, 0, 0x7fffffff),
    octets: '000004 08 00 00000000 7fffffff',
  },
];

for (const { title, write, octets: hex } of WRITTEN) {
  test(`RFC 9113 ${title}`, () => {
    const expected = toHex(octets(hex));
    const out = new Uint8Array(64).fill(0xee);
    assert.equal(write(out, 7), expected.length / 2);
    assert.equal(toHex(out.subarray(7, 7 + expected.length / 2)), expected);
    assert.ok(
      out.every((octet, i) => octet === 0xee || (i >= 7 && i < 7 + expected.length / 2)),
      'nothing around it',
    );
  });
}

test('RFC 9113 §3.4: the client preface', () => {
  assert.equal(toHex(CLIENT_PREFACE), '505249202a20485454502f322e300d0a0d0a534d0d0a0d0a');
});

test('RFC 9113 §4.1: the reserved bit of a stream id is ignored', () => {
  const header = octets('ffffff ff ff ffffffff');
  assert.equal(frameLength(header, 0), 0xffffff);
  assert.equal(frameType(header, 0), 0xff);
  assert.equal(frameFlags(header, 0), 0xff);
  assert.equal(frameStreamId(header, 0), 0x7fffffff);
});

test('numbers are unsigned and in network order', () => {
  assert.equal(readUint16(octets('00 fffe'), 1), 0xfffe);
  assert.equal(readUint31(octets('00 fffffffe'), 1), 0x7ffffffe);
  assert.equal(readUint32(octets('00 fffffffe'), 1), 0xfffffffe);
});

test('RFC 9113 §4.1: every frame header survives the way through octets', () => {
  const out = new Uint8Array(16);
  fc.assert(
    fc.property(
      fc.nat(0xffffff),
      fc.nat(255),
      fc.nat(255),
      fc.nat(0x7fffffff),
      fc.nat(7),
      (length, type, flags, streamId, offset) => {
        writeFrameHeader(out, offset, length, type, flags, streamId);
        assert.deepEqual(
          [frameLength(out, offset), frameType(out, offset), frameFlags(out, offset), frameStreamId(out, offset)],
          [length, type, flags, streamId],
        );
      },
    ),
  );
});

const SPLITS: ReadonlyArray<{ blockLength: number; maxFrameSize: number; lengths: readonly number[] }> = [
  { blockLength: 0, maxFrameSize: 10, lengths: [0] },
  { blockLength: 1, maxFrameSize: 10, lengths: [1] },
  { blockLength: 10, maxFrameSize: 10, lengths: [10] },
  { blockLength: 11, maxFrameSize: 10, lengths: [10, 1] },
  { blockLength: 30, maxFrameSize: 10, lengths: [10, 10, 10] },
  { blockLength: 31, maxFrameSize: 10, lengths: [10, 10, 10, 1] },
  { blockLength: 40_000, maxFrameSize: 16_384, lengths: [16_384, 16_384, 7232] },
];

for (const { blockLength, maxFrameSize, lengths } of SPLITS) {
  for (const inPlace of [false, true]) {
    const where = inPlace ? 'in place' : 'from another array';
    test(`RFC 9113 §6.10: a block of ${blockLength} octets in frames of ${maxFrameSize}, ${where}`, () => {
      const offset = 5;
      const block = Uint8Array.from({ length: blockLength }, (_, i) => i % 251);
      const out = new Uint8Array(offset + headersSize(blockLength, maxFrameSize) + 1).fill(0xee);
      if (inPlace) out.set(block, offset + FRAME_HEADER_SIZE);
      const source = inPlace ? out : Uint8Array.of(1, 2, 3, ...block);
      const from = inPlace ? offset + FRAME_HEADER_SIZE : 3;
      const written = writeHeaders(out, offset, 9, true, source, from, blockLength, maxFrameSize);
      assert.equal(written, headersSize(blockLength, maxFrameSize));
      assert.equal(out[offset + written], 0xee, 'octet behind the frames');
      const joined: number[] = [];
      let at = offset;
      for (const [i, length] of lengths.entries()) {
        assert.equal(frameLength(out, at), length);
        assert.equal(frameType(out, at), i === 0 ? FrameType.HEADERS : FrameType.CONTINUATION);
        const last = i === lengths.length - 1;
        assert.equal(frameFlags(out, at), (i === 0 ? FrameFlag.END_STREAM : 0) | (last ? FrameFlag.END_HEADERS : 0));
        assert.equal(frameStreamId(out, at), 9);
        joined.push(...out.subarray(at + FRAME_HEADER_SIZE, at + FRAME_HEADER_SIZE + length));
        at += FRAME_HEADER_SIZE + length;
      }
      assert.equal(at, offset + written);
      assert.deepEqual(Uint8Array.from(joined), block);
    });
  }
}

test('RFC 9113 §8.1: HEADERS without END_STREAM leave the stream open', () => {
  const out = new Uint8Array(16);
  writeHeaders(out, 0, 1, false, out, FRAME_HEADER_SIZE, 3, 16_384);
  assert.equal(frameFlags(out, 0), FrameFlag.END_HEADERS);
});
