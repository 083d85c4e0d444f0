import assert from 'node:assert/strict';
import {
  type ChannelError,
  type ChannelHandler,
  type ChannelId,
  type ChannelLoop,
  NO_LIMIT,
} from '../../../native/channel.ts';
import { newSeen, type Seen } from './record.ts';
import { content, generator, greeting, type Moment, type Script } from './script.ts';

/** What the ends of a thread share. */
export interface Stage {
  readonly loop: ChannelLoop;
  /** Called once per end, when it is gone. */
  left(seen: Seen): void;
  /** Runs `work` at some other time: soon, later, or inside an event of another channel. */
  elsewhere(work: () => void): void;
}

/** Wait for no more than this before the rest is written. */
const QUEUE = 100_000;

/** One end of a connection: follows its script, pauses and hurries at random, and checks every byte it gets. */
export class Talker implements ChannelHandler {
  channel: ChannelId = 0;
  readonly seen: Seen;
  readonly #stage: Stage;
  readonly #script: Script;
  readonly #random: () => number;
  readonly #echo: boolean;
  readonly #bytes: number;
  /** Greeting included. */
  readonly #prefix: Buffer;
  #prefixSent = false;
  #blocked = false;
  #pumping = false;
  #ended = false;

  constructor(stage: Stage, script: Script, role: 'client' | 'server') {
    this.#stage = stage;
    this.#script = script;
    this.seen = newSeen(script.id, role);
    this.#random = generator(script.id * 2 + (role === 'client' ? 0 : 1) + 12345);
    this.#echo = role === 'server' && script.mode === 'echo';
    this.#bytes = script[role].bytes;
    this.#prefix = role === 'client' ? greeting(script.id, script.mode === 'relay') : Buffer.alloc(0);
  }

  /** The connection can be written to. */
  open(): void {
    this.reached({ at: 'open' });
    if (this.#gone()) return;
    if (!this.#script.tls) this.#begin();
    this.resume();
  }

  connected(): void {
    this.open();
  }

  secured(): void {
    this.reached({ at: 'secured' });
    if (!this.#gone()) this.#begin();
  }

  data(offset: number, length: number): number {
    const { seen } = this;
    const peer = seen.role === 'client' ? 'server' : 'client';
    const author = this.#script.mode === 'echo' ? 'client' : peer;
    const expected = content(seen.id, author, seen.received, length);
    const got = this.#stage.loop.memory.subarray(offset, offset + length);
    assert.ok(expected.equals(got), `wrong bytes at ${seen.received} of ${JSON.stringify(this.#script)}`);
    seen.received += length;
    if (this.#echo) {
      seen.sent += length;
      if (this.#stage.loop.write(this.channel, offset, length) > QUEUE)
        this.#blocked = this.#stage.loop.flush(this.channel) > 0;
    }
    this.reached({ at: 'received', bytes: seen.received });
    if (this.#gone() || (this.#echo && this.#blocked)) return 0;
    return this.#nextLimit();
  }

  ended(): void {
    this.seen.told ??= 'ended';
    this.#ended = true;
    this.reached({ at: 'ended' });
    if (this.#gone()) return;
    if (this.#echo) this.#shutdown();
    else this.#finishIfDone();
  }

  drained(queued: number): void {
    this.reached({ at: 'drained' });
    if (this.#gone() || queued > 0) return;
    this.#blocked = false;
    if (this.#echo) this.resume();
    else this.#pumpSoon();
  }

  failed(error: ChannelError): void {
    this.seen.told ??= 'failed';
    this.seen.error = error.message;
    this.#leave('failed', 'close');
  }

  closed(): void {
    this.#stage.left(this.seen);
  }

  resume(): void {
    this.#stage.loop.resume(this.channel, this.#limit());
  }

  /** Gives up when the script says so. */
  reached(moment: Moment): void {
    const { fate } = this.#script[this.seen.role];
    if (fate.kind === 'finish' || fate.when.at !== moment.at || this.#gone()) return;
    if ('bytes' in moment && 'bytes' in fate.when && moment.bytes < fate.when.bytes) return;
    const giveUp = () => {
      if (!this.#gone()) this.#leave(fate.kind === 'close' ? 'closed' : 'reset', fate.kind);
    };
    if (fate.later) this.#stage.elsewhere(giveUp);
    else giveUp();
  }

  #begin(): void {
    if (!this.#echo) this.#pump();
  }

  #pumpSoon(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    this.#stage.elsewhere(() => {
      this.#pumping = false;
      if (!this.#gone() && !this.seen.shut && !this.#blocked) this.#pump();
    });
  }

  #pump(): void {
    const { loop } = this.#stage;
    if (!this.#prefixSent) {
      this.#prefixSent = true;
      this.#write(this.#prefix);
    }
    while (this.seen.sent < this.#bytes) {
      const length = Math.min(1 + Math.floor(this.#random() ** 4 * 50_000), this.#bytes - this.seen.sent);
      const queued = this.#write(content(this.seen.id, this.seen.role, this.seen.sent, length));
      if (queued < 0) return; // failed() follows
      this.seen.sent += length;
      this.reached({ at: 'sent', bytes: this.seen.sent });
      if (this.#gone()) return;
      if (queued > QUEUE || this.#random() < 0.1) {
        this.#blocked = loop.flush(this.channel) > 0;
        if (this.#blocked) return;
      }
      if (this.#random() < 0.3) {
        this.#pumpSoon();
        return;
      }
    }
    this.#shutdown();
  }

  #write(bytes: Buffer): number {
    const { loop } = this.#stage;
    loop.memory.set(bytes, 0);
    const queued = loop.write(this.channel, 0, bytes.length);
    // What was written must have been taken.
    loop.memory.fill(0xee, 0, Math.min(bytes.length, 64));
    return queued;
  }

  #shutdown(): void {
    this.seen.shut = true;
    this.#stage.loop.shutdown(this.channel);
    this.reached({ at: 'shutdown' });
    this.#finishIfDone();
  }

  #finishIfDone(): void {
    if (!this.#gone() && this.#ended && this.seen.shut) this.#leave('finished', 'close');
  }

  #leave(how: NonNullable<Seen['left']>, call: 'close' | 'reset'): void {
    const { loop } = this.#stage;
    this.seen.left = how;
    if (call === 'close') this.seen.shut = true;
    if (call === 'reset') loop.reset(this.channel);
    else if (!loop.close(this.channel)) return; // closed() follows
    this.#stage.left(this.seen);
  }

  #gone(): boolean {
    return this.seen.left !== null;
  }

  #limit(): number {
    const dice = this.#random();
    return dice < 0.1
      ? 1 + Math.floor(this.#random() * 10)
      : dice < 0.5
        ? 1 + Math.floor(this.#random() * 20_000)
        : NO_LIMIT;
  }

  #nextLimit(): number {
    if (this.#random() < 0.7) return this.#limit();
    this.#stage.elsewhere(() => {
      if (!this.#gone() && !(this.#echo && this.#blocked)) this.resume();
    });
    return 0;
  }
}
