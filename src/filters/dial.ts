import type { ChannelError, ChannelHandler, ChannelId } from '../../native/channel.ts';
import type { Deadline } from '../deadlines.ts';
import { CulvertError } from '../errors.ts';
import type { SocketAddress } from '../netns/address.ts';
import type { Plane, Pod } from './plane.ts';

/** Who hears what becomes of a connection to somebody else: `connected` or `failed` is called, once. */
export interface DialOutcome {
  /** The connect is under way: the port of this end is known. */
  started?(channel: ChannelId): void;
  /** The channel is paused and has no handler yet: adopt it within the call. */
  connected(channel: ChannelId): void;
  /** An errno name as the code; ETIMEDOUT also when the deadline passed. Called before `dial` returns if it fails at once. */
  failed(error: ChannelError): void;
}

/** A connection that is being made. */
export interface Dial {
  /** Gives up: neither outcome is told. */
  cancel(): void;
}

/**
 * Connects from inside the pod's namespace, from the address `source` when there is one, within the deadline for
 * connecting.
 */
export function dial(plane: Plane, pod: Pod, target: SocketAddress, source: string | null, outcome: DialOutcome): Dial {
  const dialling = new Dialling(plane, outcome);
  dialling.start(pod, target, source);
  return dialling;
}

class Dialling implements Dial, ChannelHandler {
  readonly #plane: Plane;
  readonly #outcome: DialOutcome;
  #deadline: Deadline | null = null;
  #channel: ChannelId = 0;
  #over = false;

  constructor(plane: Plane, outcome: DialOutcome) {
    this.#plane = plane;
    this.#outcome = outcome;
  }

  start(pod: Pod, target: SocketAddress, source: string | null): void {
    const { loop, deadlines } = this.#plane;
    this.#deadline = deadlines.connect.set(() => this.failed(new CulvertError('ETIMEDOUT', 'deadline has elapsed')));
    try {
      this.#channel = loop.connect(pod.netns, target.ip, target.port, source, this);
      this.#outcome.started?.(this.#channel);
    } catch (error) {
      this.failed(error as ChannelError);
    }
  }

  cancel(): void {
    if (this.#over) return;
    this.#end();
    this.#plane.loop.reset(this.#channel);
  }

  connected(): void {
    if (this.#over) return;
    this.#end();
    this.#outcome.connected(this.#channel);
  }

  failed(error: ChannelError): void {
    if (this.#over) return;
    this.#end();
    if (this.#channel !== 0) this.#plane.loop.close(this.#channel);
    this.#outcome.failed(error);
  }

  ended(): void {}
  data(): number {
    return 0;
  }
  secured(): void {}
  drained(): void {}
  closed(): void {}

  #end(): void {
    this.#over = true;
    this.#deadline?.clear();
  }
}
