import type { ChannelLoop } from '../../native/channel.ts';
import { CulvertError, messageOf } from '../errors.ts';
import type { PlaneSettings, TlsIdentities } from '../filters/plane.ts';
import type { WorkloadCertificate } from '../identity/certificate.ts';
import type { Logger } from '../log/logger.ts';

/** The TLS contexts of one thread, one per identity. Keys live in the addon only, and are freed on rotation. */
export class TlsContexts implements TlsIdentities {
  readonly #loop: ChannelLoop;
  readonly #settings: PlaneSettings;
  readonly #ask: (identity: string) => void;
  readonly #log: Pick<Logger, 'warn'>;
  readonly #contexts = new Map<string, number>();
  readonly #waiting = new Map<string, ((context: number | CulvertError) => void)[]>();

  /** `ask` requests a certificate from the control thread; `set` or `fail` follows. */
  constructor(loop: ChannelLoop, settings: PlaneSettings, ask: (identity: string) => void, log: Pick<Logger, 'warn'>) {
    this.#log = log;
    this.#loop = loop;
    this.#settings = settings;
    this.#ask = ask;
  }

  context(identity: string, done: (context: number | CulvertError) => void): number | null {
    const context = this.#contexts.get(identity);
    if (context !== undefined) return context;
    const waiting = this.#waiting.get(identity);
    if (waiting !== undefined) {
      waiting.push(done);
    } else {
      this.#waiting.set(identity, [done]);
      this.#ask(identity);
    }
    return null;
  }

  /** A new certificate. Returns true when it replaces one: tunnels that used it should be retired. */
  set(identity: string, certificate: WorkloadCertificate): boolean {
    let context: number;
    try {
      context = this.#newContext(identity, certificate);
    } catch (error) {
      const what = `the certificate cannot be used: ${messageOf(error)}`;
      this.#log.warn('identity', this.#contexts.has(identity) ? `${what}; the one of before stays in use` : what, {
        identity,
      });
      this.fail(identity, what);
      return false;
    }
    const previous = this.#contexts.get(identity);
    if (previous !== undefined) this.#loop.freeTlsContext(previous);
    this.#contexts.set(identity, context);
    this.#settle(identity, context);
    return previous !== undefined;
  }

  #newContext(identity: string, certificate: WorkloadCertificate): number {
    const { tlsGroups, tls12, keyLogPath } = this.#settings;
    const make = (keyLogPath: string) =>
      this.#loop.newTlsContext({
        chainPem: certificate.chainPem,
        key: certificate.privateKey,
        rootsPem: certificate.rootsPem,
        groups: tlsGroups,
        keyLogPath,
        tls12,
      });
    try {
      return make(keyLogPath);
    } catch (error) {
      // A key log that went away must not cost the traffic. Any other mistake is made again.
      if (keyLogPath === '') throw error;
      const context = make('');
      this.#log.warn('identity', 'TLS session secrets are not written', { identity, error: messageOf(error) });
      return context;
    }
  }

  /** Drops the context of an identity. Connections that use it keep it until they end. */
  forget(identity: string): void {
    const context = this.#contexts.get(identity);
    if (context === undefined) return;
    this.#contexts.delete(identity);
    this.#loop.freeTlsContext(context);
  }

  /** No certificate is to be had now; who waits is told, and the next one asks again. */
  fail(identity: string, error: string): void {
    this.#settle(identity, new CulvertError('NO_CERTIFICATE', `identity error: ${error}`));
  }

  #settle(identity: string, outcome: number | CulvertError): void {
    const waiting = this.#waiting.get(identity) ?? [];
    this.#waiting.delete(identity);
    for (const done of waiting) done(outcome);
  }
}
