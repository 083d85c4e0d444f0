import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CulvertError } from '../../../src/errors.ts';
import { connectionError, ErrorCode, errorCodeName, streamError } from '../../../src/hbone/http-error.ts';

// In the order of RFC 9113 §7, written down once more so that a slip in the table shows.
const NAMES = (
  'NO_ERROR PROTOCOL_ERROR INTERNAL_ERROR FLOW_CONTROL_ERROR SETTINGS_TIMEOUT STREAM_CLOSED FRAME_SIZE_ERROR ' +
  'REFUSED_STREAM CANCEL COMPRESSION_ERROR CONNECT_ERROR ENHANCE_YOUR_CALM INADEQUATE_SECURITY HTTP_1_1_REQUIRED'
).split(' ');

test('RFC 9113 §7: every code has its name and its number', () => {
  assert.deepEqual(
    Object.entries(ErrorCode),
    NAMES.map((name, code) => [name, code]),
  );
  for (const [code, name] of NAMES.entries()) assert.equal(errorCodeName(code), name);
});

test('RFC 9113 §7: unknown codes are shown as numbers', () => {
  assert.equal(errorCodeName(0xe), '0x0000000e');
  assert.equal(errorCodeName(0xffffffff), '0xffffffff');
});

test('an error says what it ends, with which code, and is a CulvertError', () => {
  const connection = connectionError('COMPRESSION_ERROR', 'bad block');
  assert.ok(connection instanceof CulvertError);
  assert.deepEqual(
    [connection.scope, connection.http2Code, connection.code, connection.message],
    [{ kind: 'connection' }, 9, 'HTTP2_COMPRESSION_ERROR', 'bad block'],
  );
  const stream = streamError(7, 'PROTOCOL_ERROR', 'bad head');
  assert.deepEqual(
    [stream.scope, stream.http2Code, stream.code],
    [{ kind: 'stream', streamId: 7 }, 1, 'HTTP2_PROTOCOL_ERROR'],
  );
});
