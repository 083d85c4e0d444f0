import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { Carrier, ChannelLoop } from '../../../native/channel.ts';
import { FrameFlag, FrameType } from '../../../src/hbone/frames.ts';
import { ErrorCode } from '../../../src/hbone/http-error.ts';
import { channelInStream } from '../../../src/hbone/stream-carrier.ts';
import { createAuthority } from '../../native/authority.ts';
import { CLIENT_ID, SERVER_ID, startClient, startServer } from '../../native/secure-side.ts';
import { assertLog, nextTurns, Side, testLoop } from '../../native/side.ts';
import { ConnectionUnderTest, frame, responseFrame, words } from './support/connection-under-test.ts';
import { MemoryTransport } from './support/memory-transport.ts';

const authority = createAuthority();

/** The far end of the TLS in a stream, of the same loop: keeps what it sends until the test passes it on. */
class FarEnd implements Carrier {
  readonly side: Side;
  readonly #loop: ChannelLoop;
  #sent: Buffer[] = [];

  constructor(loop: ChannelLoop) {
    this.#loop = loop;
    this.side = new Side(loop);
    this.side.channel = loop.openMemory(this.side, this);
  }

  output(): void {
    for (let taken = -1; taken !== 0; ) {
      taken = this.#loop.take(this.side.channel, 0, 16_384);
      if (taken > 0) this.#sent.push(Buffer.from(this.#loop.memory.slice(0, taken)));
    }
  }

  outputEnded(): void {}
  gone(): void {}

  /** What it has sent, as DATA. */
  data(): Buffer {
    this.output();
    const bytes = Buffer.concat(this.#sent);
    this.#sent = [];
    return frame(FrameType.DATA, 0, 1, bytes);
  }

  hear(bytes: Buffer): void {
    this.#loop.memory.set(bytes, 0);
    this.#loop.deliver(this.side.channel, 0, bytes.length);
  }
}

/** A client's tunnel inside a stream, past the handshake. */
async function tunnelInStream(t: TestContext) {
  const loop = testLoop(t);
  const outer = new ConnectionUnderTest('client', {}, {}, new MemoryTransport(loop.memory)).established();
  const { stream } = outer.open();
  outer.receive(responseFrame(1, 200));
  const near = new Side(loop);
  near.channel = channelInStream(loop, stream, near);
  const far = new FarEnd(loop);
  startServer(far.side, authority.material({ uris: [SERVER_ID] }));
  startClient(near, authority.material({ uris: [CLIENT_ID] }));
  while (near.log.length === 0 || far.side.log.length === 0) {
    await nextTurns();
    for (const { type, payload } of outer.frames()) if (type === FrameType.DATA) far.hear(payload);
    outer.receive(far.data());
  }
  await nextTurns();
  assertLog(near, ['secured']);
  near.log.length = 0;
  return { outer, near, far };
}

const END = frame(FrameType.DATA, FrameFlag.END_STREAM, 1);
const reset = (code: ErrorCode) => frame(FrameType.RST_STREAM, 0, 1, words(code));
const FAILED = 'failed ECONNRESET: Connection reset by peer (os error 104)';

test('what came in front of a reset of the stream is read', async (t) => {
  const { outer, near, far } = await tunnelInStream(t);
  far.side.send('last words');
  outer.receive(far.data(), reset(ErrorCode.CANCEL));
  await near.until(() => near.log.length > 0);
  assert.equal(near.text, 'last words');
  assertLog(near, [FAILED]);
});

for (const [code, told] of [
  [ErrorCode.NO_ERROR, 'ended'],
  [ErrorCode.CANCEL, FAILED],
] as const) {
  test(`RFC 9113 §8.1: an end and a reset with the code ${code} behind it: ${told}`, async (t) => {
    const { outer, near, far } = await tunnelInStream(t);
    far.side.send('last words');
    outer.receive(far.data());
    await near.until(() => near.text === 'last words');
    outer.receive(END, reset(code));
    await near.until(() => near.log.length > 0);
    await nextTurns();
    assertLog(near, [told]);
  });
}
