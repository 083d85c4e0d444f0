import {
  type ChannelError,
  type ChannelHandler,
  type ChannelId,
  type ChannelLoop,
  NO_LIMIT,
} from '../../../native/channel.ts';
import { GREETING_SIZE, type Greeting, readGreeting } from './script.ts';
import type { Talker } from './talker.ts';

/** Who serves the connection; null when somebody else has taken the channel over. */
export type Admit = (greeting: Greeting) => Talker | null;

/** A server that does not know yet who it talks to: reads the greeting of a connection that was just accepted. */
export class Doorman implements ChannelHandler {
  readonly #loop: ChannelLoop;
  readonly #channel: ChannelId;
  readonly #tls: boolean;
  readonly #admit: Admit;
  #greeting = Buffer.alloc(0);

  /** Over TLS the caller starts it next. Otherwise everything behind the greeting is left in the socket. */
  constructor(loop: ChannelLoop, channel: ChannelId, tls: boolean, admit: Admit) {
    this.#loop = loop;
    this.#channel = channel;
    this.#tls = tls;
    this.#admit = admit;
    loop.adopt(channel, this);
    if (!tls) loop.resume(channel, GREETING_SIZE);
  }

  data(offset: number, length: number): number {
    const missing = Math.min(GREETING_SIZE - this.#greeting.length, length);
    this.#greeting = Buffer.concat([this.#greeting, this.#loop.memory.subarray(offset, offset + missing)]);
    if (this.#greeting.length < GREETING_SIZE) return this.#tls ? NO_LIMIT : GREETING_SIZE - this.#greeting.length;
    const greeting = readGreeting(this.#greeting);
    if (greeting === null) throw new Error(`a wrong greeting: ${this.#greeting.toString('latin1')}`);
    const talker = this.#admit(greeting);
    if (talker === null) return 0;
    talker.channel = this.#channel;
    this.#loop.adopt(this.#channel, talker);
    talker.open();
    if (this.#tls) talker.secured();
    if (talker.seen.left !== null) return 0;
    return length > missing ? talker.data(offset + missing, length - missing) : NO_LIMIT;
  }

  ended(): void {
    this.#loop.close(this.#channel);
  }

  failed(_error: ChannelError): void {
    this.#loop.close(this.#channel);
  }

  connected(): void {}
  secured(): void {}
  drained(): void {}
  closed(): void {}
}
