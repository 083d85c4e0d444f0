import { CulvertError } from '../errors.ts';
import type { Http2Connection } from './connection.ts';
import type { ErrorCode } from './http-error.ts';

/** Which tunnels may serve a stream: all of it must be equal (spec §6.1). */
export interface TunnelKey {
  /** SPIFFE id of the source workload, whose certificate is shown. */
  readonly source: string;
  /** SPIFFE ids of which the peer must show one; sorted. */
  readonly expected: readonly string[];
  readonly ip: string;
  readonly port: number;
  /** The pod whose namespace, and so whose address, the tunnel starts from. */
  readonly pod: string;
}

export interface TunnelPoolOptions {
  /** Streams at the same time in one tunnel, 1..65535. */
  readonly maxStreams: number;
  /** A tunnel without streams is closed after this time, in ms. */
  readonly idleTimeout: number;
  /** A tunnel takes no new streams after this time, in ms, or up to a tenth earlier; 0 for no limit. */
  readonly maxAge: number;
  readonly now: () => number;
  /** Uniform in [0, 1). */
  readonly random: () => number;
  /** Opens a tunnel. `opened` or `failed` is called once, later. */
  readonly dial: (key: TunnelKey, events: DialEvents) => void;
  /** Told for each request: whether a tunnel was there, one was being opened, or one had to be opened. */
  readonly count: (result: 'hit' | 'wait' | 'miss') => void;
}

export interface DialEvents {
  opened(connection: Http2Connection): void;
  failed(error: CulvertError): void;
}

/** Gets a tunnel with room for a stream, which must be opened before returning; or why there is none. */
export interface TunnelRequest {
  /** Nobody waits for it any more: it is passed over. */
  readonly isOver: boolean;
  tunnel(connection: Http2Connection): void;
  noTunnel(error: CulvertError): void;
}

/**
 * The tunnels of one thread. Concurrent first uses share one handshake; a full tunnel is used again when streams end; a
 * failed handshake fails exactly those who waited for it.
 */
export class TunnelPool {
  readonly #options: TunnelPoolOptions;
  readonly #groups = new Map<string, Group>();
  readonly #tunnels = new Map<Http2Connection, Tunnel>();

  constructor(options: TunnelPoolOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#tunnels.size;
  }

  /** Keys that something is held for. */
  get destinations(): number {
    return this.#groups.size;
  }

  request(key: TunnelKey, request: TunnelRequest): void {
    const name = nameOf(key);
    let group = this.#groups.get(name);
    if (group === undefined) {
      group = newGroup(key, name);
      this.#groups.set(name, group);
    }
    const tunnel = this.#withRoom(group);
    if (tunnel !== null) {
      this.#options.count('hit');
      this.#give(tunnel, request);
      return;
    }
    group.waiting.push(request);
    if (group.waiting.length <= group.dialling * this.#options.maxStreams) {
      this.#options.count('wait');
      return;
    }
    this.#options.count('miss');
    this.#dial(group);
  }

  /** A tunnel that was opened for one user and is not shared: it is kept alive, counted, and ends with its pod. */
  lookAfter(key: TunnelKey, connection: Http2Connection): void {
    const tunnel = { group: newGroup(key, ''), connection, retireAt: Number.POSITIVE_INFINITY, idleSince: 0 };
    this.#tunnels.set(connection, tunnel);
  }

  /** A stream of this tunnel ended. */
  streamClosed(connection: Http2Connection): void {
    const tunnel = this.#tunnels.get(connection);
    if (tunnel === undefined) return;
    if (connection.streamCount === 0) tunnel.idleSince = this.#options.now();
    if (tunnel.group.waiting.length > 0) this.#serve(tunnel.group);
  }

  /** The tunnel takes no more streams; it is still looked after until it has closed. */
  retired(connection: Http2Connection): void {
    const tunnel = this.#tunnels.get(connection);
    if (tunnel === undefined) return;
    const { group } = tunnel;
    const at = group.tunnels.indexOf(tunnel);
    if (at < 0) return;
    group.tunnels.splice(at, 1);
    this.#dropIfEmpty(group);
  }

  /** The tunnel is to take no more streams, and closes after its last one. */
  retire(connection: Http2Connection): void {
    this.retired(connection);
    connection.drain();
  }

  /**
   * The tunnel is to take no more streams, nor are those that stand in for it and have been silent since then: what has
   * swallowed one may have swallowed them all. Who asks next gets one that was heard of since, or a new one.
   */
  retireSilent(connection: Http2Connection, since: number): void {
    const name = this.#tunnels.get(connection)?.group.name;
    const group = name === undefined ? undefined : this.#groups.get(name);
    for (const tunnel of [...(group?.tunnels ?? [])]) {
      if (tunnel.connection.heardAt <= since) this.retire(tunnel.connection);
    }
    this.retire(connection);
  }

  /** The tunnel is gone. */
  closed(connection: Http2Connection): void {
    this.retired(connection);
    this.#tunnels.delete(connection);
  }

  /** Tunnels of this source take no new streams: its certificate changed, or it is gone. Existing streams go on. */
  retireSource(identity: string): void {
    for (const group of [...this.#groups.values()]) {
      if (group.key.source !== identity) continue;
      group.certificates++;
      for (const { connection } of [...group.tunnels]) this.retire(connection);
    }
  }

  /** Closes the tunnels that start in this pod, at once. */
  closePod(pod: string, code: ErrorCode): void {
    for (const group of [...this.#groups.values()]) {
      if (group.key.pod !== pod) continue;
      group.closed = true;
      this.#groups.delete(group.name);
      const error = new CulvertError('POOL_DRAINING', 'pool draining');
      for (const request of group.waiting.splice(0)) request.noTunnel(error);
    }
    for (const { group, connection } of [...this.#tunnels.values()]) {
      if (group.key.pod === pod) connection.abort(code, 'the pod is gone');
    }
  }

  /** Closes idle tunnels and retires old ones. Called every second or so. */
  tick(): void {
    const { now, idleTimeout } = this.#options;
    const time = now();
    for (const group of [...this.#groups.values()]) {
      for (const tunnel of [...group.tunnels]) {
        const isIdle =
          tunnel.idleSince > 0 && time - tunnel.idleSince >= idleTimeout && tunnel.connection.streamCount === 0;
        if (isIdle || time >= tunnel.retireAt) this.retire(tunnel.connection);
      }
    }
  }

  /** Every tunnel that is open, those that take no new streams too. */
  connections(): IterableIterator<Http2Connection> {
    return this.#tunnels.keys();
  }

  #dial(group: Group): void {
    group.dialling++;
    const { certificates } = group;
    this.#options.dial(group.key, {
      opened: (connection) => {
        group.dialling--;
        if (group.closed) {
          connection.drain();
          return;
        }
        const tunnel = { group, connection, retireAt: this.#retireAt(), idleSince: this.#options.now() };
        group.tunnels.push(tunnel);
        this.#tunnels.set(connection, tunnel);
        this.#serve(group);
        // It serves those who waited for it; its handshake may have shown the certificate of before.
        if (group.certificates !== certificates) this.retire(connection);
      },
      failed: (error) => {
        group.dialling--;
        // As many as this tunnel would have served; the others wait for tunnels that are still being opened.
        const refused = group.waiting.splice(0, group.dialling === 0 ? group.waiting.length : this.#options.maxStreams);
        this.#dropIfEmpty(group);
        for (const request of refused) request.noTunnel(error);
      },
    });
  }

  /** Not all at once: tunnels that were opened together would be opened anew together. */
  #retireAt(): number {
    const { maxAge, now, random } = this.#options;
    return maxAge === 0 ? Number.POSITIVE_INFINITY : now() + maxAge * (1 - 0.1 * random());
  }

  #serve(group: Group): void {
    while (group.waiting.length > 0) {
      if (group.waiting[0]!.isOver) {
        group.waiting.shift();
        continue;
      }
      const tunnel = this.#withRoom(group);
      if (tunnel === null) break;
      this.#give(tunnel, group.waiting.shift()!);
    }
    // The peer may allow fewer streams than were expected to fit.
    if (group.waiting.length > group.dialling * this.#options.maxStreams) this.#dial(group);
  }

  #give(tunnel: Tunnel, request: TunnelRequest): void {
    const { connection } = tunnel;
    tunnel.idleSince = 0;
    request.tunnel(connection);
    if (connection.streamCount === 0) tunnel.idleSince = this.#options.now();
  }

  /** The fullest tunnel with room, so that the others can become idle and go. */
  #withRoom(group: Group): Tunnel | null {
    let best: Tunnel | null = null;
    for (const tunnel of group.tunnels) {
      const { connection } = tunnel;
      if (connection.room === 0 || connection.streamCount >= this.#options.maxStreams) continue;
      if (best === null || connection.streamCount > best.connection.streamCount) best = tunnel;
    }
    return best;
  }

  #dropIfEmpty(group: Group): void {
    const isEmpty = group.tunnels.length === 0 && group.dialling === 0 && group.waiting.length === 0;
    if (isEmpty && this.#groups.get(group.name) === group) this.#groups.delete(group.name);
  }
}

interface Tunnel {
  readonly group: Group;
  readonly connection: Http2Connection;
  /** When it takes no more streams because of its age. */
  readonly retireAt: number;
  /** 0 while it has streams. */
  idleSince: number;
}

interface Group {
  readonly key: TunnelKey;
  readonly name: string;
  readonly tunnels: Tunnel[];
  /** Tunnels that are being opened. */
  dialling: number;
  readonly waiting: TunnelRequest[];
  /** How many times the certificate of the source has changed. */
  certificates: number;
  /** The pod is gone; a tunnel that is still being opened is not wanted any more. */
  closed: boolean;
}

function newGroup(key: TunnelKey, name: string): Group {
  return { key, name, tunnels: [], dialling: 0, waiting: [], certificates: 0, closed: false };
}

/** Callers keep their keys: a name is made once for each. */
const names = new WeakMap<TunnelKey, string>();

function nameOf(key: TunnelKey): string {
  let name = names.get(key);
  if (name === undefined) {
    name = `${key.pod}\0${key.ip}\0${key.port}\0${key.source}\0${key.expected.join('\0')}`;
    names.set(key, name);
  }
  return name;
}
