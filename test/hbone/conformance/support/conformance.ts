import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FrameFlag, FrameType } from '../../../../src/hbone/frames.ts';
import type { HeaderField } from '../../../../src/hbone/hpack.ts';
import type { ErrorCodeName } from '../../../../src/hbone/http-error.ts';
import type { Http2Stream } from '../../../../src/hbone/stream.ts';
import {
  block,
  ConnectionUnderTest,
  connectFrame,
  frame,
  type Role,
  responseFrame,
} from '../../connection/support/connection-under-test.ts';
import type { Recorder } from '../../connection/support/recorder.ts';

/** What the rule asks for. Streams that are not named stay open, and so does the connection. */
export type Verdict =
  | { readonly kind: 'ignored' }
  | { readonly kind: 'answered'; readonly said: readonly string[] }
  | { readonly kind: 'stream-error'; readonly code: ErrorCodeName; readonly streamId: number }
  | { readonly kind: 'connection-error'; readonly code: ErrorCodeName };

export const IGNORED: Verdict = { kind: 'ignored' };
export const answered = (...said: string[]): Verdict => ({ kind: 'answered', said });
export const connectionError = (code: ErrorCodeName): Verdict => ({ kind: 'connection-error', code });
export const streamError = (code: ErrorCodeName, streamId = 1): Verdict => ({ kind: 'stream-error', code, streamId });

/** A connection past its preface, whose stream 1 is open and answered; what comes on it is not taken. */
export interface Established {
  readonly under: ConnectionUnderTest;
  readonly role: Role;
  readonly stream: Http2Stream;
  readonly recorder: Recorder;
}

/** Bytes of the peer, or something that this side does. */
export type Step = Buffer | ((connection: Established) => void);

export interface Rule {
  /** Of RFC 9113 unless it says otherwise. */
  readonly section: string;
  readonly what: string;
  readonly steps: readonly Step[];
  readonly verdict: Verdict;
  /** Both when left out. */
  readonly role?: Role;
}

/** One test for each rule and role. */
export function conformance(rules: readonly Rule[]): void {
  for (const rule of rules) {
    for (const role of ['server', 'client'] as const) {
      if (rule.role !== undefined && rule.role !== role) continue;
      test(nameOf(rule, role), () => check(rule, role));
    }
  }
}

export function established(role: Role): Established {
  const under = new ConnectionUnderTest(role).established();
  under.reads = false;
  if (role === 'server') {
    under.receive(connectFrame(1));
    const { stream, recorder } = under.requests[0]!;
    stream.respond([[':status', '200']], false);
    under.frames();
    return { under, role, stream, recorder };
  }
  const { stream, recorder } = under.open();
  under.receive(responseFrame(1, 200));
  under.frames();
  return { under, role, stream, recorder };
}

function check({ steps, verdict }: Rule, role: Role): void {
  const connection = established(role);
  const { under, stream } = connection;
  let said: string[] = [];
  for (const step of steps) {
    // What this side says of its own accord does not belong to the verdict.
    if (typeof step === 'function') {
      step(connection);
      under.frames();
    } else {
      under.receive(step);
      said = said.concat(under.said());
    }
  }
  switch (verdict.kind) {
    case 'ignored':
      assert.deepEqual(said, []);
      break;
    case 'answered':
      assert.deepEqual(said, verdict.said);
      break;
    case 'stream-error':
      assert.deepEqual(said, [`RST_STREAM ${verdict.streamId} ${verdict.code}`]);
      break;
    case 'connection-error': {
      assert.match(said.join(', '), new RegExp(`^GOAWAY ${verdict.code} \\(last \\d+\\)$`));
      assert.equal(under.closed?.code, `HTTP2_${verdict.code}`);
      assert.equal(under.transport.closed, true);
      assert.equal(stream.closed, true);
      assert.ok(under.breaches.length > 0, 'it was not counted');
      return;
    }
  }
  assert.equal(under.closed, undefined);
  assertUsable(under, role);
}

/** The connection goes on: another stream works. */
function assertUsable(under: ConnectionUnderTest, role: Role): void {
  if (role === 'server') {
    under.receive(connectFrame(101));
    const request = under.requests.at(-1)!;
    assert.equal(request.stream.id, 101);
    under.receive(frame(FrameType.DATA, FrameFlag.END_STREAM, 101, Buffer.from('hello')));
    assert.equal(request.recorder.data.toString(), 'hello');
    return;
  }
  const { stream, recorder } = under.open();
  under.receive(
    responseFrame(stream.id, 200),
    frame(FrameType.DATA, FrameFlag.END_STREAM, stream.id, Buffer.from('hello')),
  );
  assert.deepEqual([recorder.status(), recorder.data.toString(), recorder.outcome], [200, 'hello', 'end']);
}

function nameOf({ section, what, verdict }: Rule, role: Role): string {
  const rfc = section.startsWith('RFC') ? section : `RFC 9113 ${section}`;
  return `${rfc}: a ${role} gets ${what}: ${wordsFor(verdict)}`;
}

function wordsFor(verdict: Verdict): string {
  switch (verdict.kind) {
    case 'ignored':
      return 'accepted';
    case 'answered':
      return verdict.said.join(', ');
    case 'stream-error':
      return `stream error ${verdict.code}`;
    case 'connection-error':
      return `connection error ${verdict.code}`;
  }
}

/** A header block in one HEADERS frame. */
export function headers(streamId: number, fields: readonly HeaderField[], flags = 0): Buffer {
  return frame(FrameType.HEADERS, FrameFlag.END_HEADERS | flags, streamId, block(fields));
}

/** `payload` behind its pad length and before its padding. */
export function padded(payload: Uint8Array, padding: number): Buffer {
  return Buffer.concat([Buffer.from([padding]), payload, Buffer.alloc(padding)]);
}
