import type { Accepted, ChannelError, ChannelHandler, ChannelId } from '../../native/channel.ts';
import type { FilterChain } from './chain.ts';
import { type ListenerName, ProxiedConnection } from './connection.ts';
import type { Plane, Pod } from './plane.ts';
import { close, type Refusal } from './verdict.ts';

/** A TCP connection that the pod's capture rules brought to a listener. Until a relay takes over nothing is read from it. */
export abstract class CapturedConnection extends ProxiedConnection implements ChannelHandler {
  readonly plane: Plane;
  readonly pod: Pod;
  protected readonly channel: ChannelId;
  protected relay: { start(): void; cut(): void } | null = null;
  readonly #chain: FilterChain<never>;

  constructor(listener: ListenerName, plane: Plane, pod: Pod, accepted: Accepted, chain: FilterChain<never>) {
    super(
      pod,
      listener,
      { ip: accepted.peerIp, port: accepted.peerPort },
      { ip: accepted.destinationIp, port: accepted.destinationPort },
    );
    this.plane = plane;
    this.pod = pod;
    this.#chain = chain;
    this.channel = accepted.channel;
    plane.loop.adopt(accepted.channel, this);
    pod.connections.add(this);
  }

  chain(): FilterChain<this> {
    return this.#chain as unknown as FilterChain<this>;
  }

  dismiss(): void {
    this.release();
    // The application has been told that it is connected: only a reset says that it is not (spec §18.2, defect 9).
    this.plane.loop.reset(this.channel);
  }

  cut(refusal: Refusal): void {
    if (this.isOver) return;
    if (this.relay !== null) this.relay.cut();
    else this.dismiss();
    this.finish(refusal);
  }

  failed(error: ChannelError): void {
    this.release();
    this.plane.loop.close(this.channel);
    this.finish(close('client-gone', `client disconnected before the connection was made: ${error.message}`));
  }

  ended(): void {}
  data(): number {
    return 0;
  }
  connected(): void {}
  secured(): void {}
  drained(): void {}
  closed(): void {}

  /** Lets go of whatever was on the way to the other side. */
  protected abstract release(): void;
}
