/** TLS on sides, and peers of other makes. */

import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { ChannelLoop, TlsMaterial } from '../../native/channel.ts';
import type { TestMaterial } from './authority.ts';
import { connectedPair, type Side } from './side.ts';

export const TRUST_DOMAIN = 'cluster.local';
export const CLIENT_ID = `spiffe://${TRUST_DOMAIN}/ns/shop/sa/client`;
export const SERVER_ID = `spiffe://${TRUST_DOMAIN}/ns/shop/sa/server`;

/** A connection of two channels; TLS has started on both. */
export async function startedTlsPair(
  loop: ChannelLoop,
  client: TlsMaterial,
  server: TlsMaterial,
  expected: { readonly identities?: readonly string[]; readonly trustDomain?: string } = {},
): Promise<{ client: Side; server: Side }> {
  const pair = await connectedPair(loop);
  startServer(pair.server, server, expected.trustDomain);
  startClient(pair.client, client, expected.identities);
  return pair;
}

export function startServer(side: Side, material: TlsMaterial, trustDomain = TRUST_DOMAIN): void {
  withContext(side.loop, material, (context) => side.loop.startTls(side.channel, context, 'server', [], trustDomain));
}

export function startClient(side: Side, material: TlsMaterial, identities: readonly string[] = [SERVER_ID]): void {
  withContext(side.loop, material, (context) => side.loop.startTls(side.channel, context, 'client', identities, ''));
}

function withContext(loop: ChannelLoop, material: TlsMaterial, use: (context: number) => void): void {
  const context = loop.newTlsContext(material);
  use(context);
  // Who uses it already keeps it.
  loop.freeTlsContext(context);
}

/** A folder that is removed after the test. */
export function temporaryFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'culvert-native-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Files of the material, as options of openssl's programs. */
export function opensslIdentity(t: TestContext, { chainPem, keyPem, rootsPem }: TestMaterial): string[] {
  const folder = temporaryFolder(t);
  const file = (name: string, text: string) => {
    writeFileSync(join(folder, name), text);
    return join(folder, name);
  };
  const chain = file('chain.pem', chainPem);
  return [
    ...['-cert', chain, '-cert_chain', chain],
    ...['-key', file('key.pem', keyPem)],
    ...['-CAfile', file('roots.pem', rootsPem)],
  ];
}

export interface OpensslPeer {
  readonly process: ChildProcessWithoutNullStreams;
  /** Everything it printed so far. */
  readonly output: () => string;
  /** Resolves when it has printed this so many times. */
  printed(text: string, times?: number): Promise<void>;
  write(text: string): void;
}

/** `openssl s_client` or `openssl s_server`; ends with the test. */
export function opensslPeer(t: TestContext, args: readonly string[]): OpensslPeer {
  const child = spawn('openssl', args);
  t.after(async () => {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
  });
  let output = '';
  const waiting = new Set<() => void>();
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('latin1');
    stream.on('data', (text: string) => {
      output += text;
      for (const look of waiting) look();
    });
  }
  child.stdin.on('error', () => {});
  return {
    process: child,
    output: () => output,
    printed: (text, times = 1) =>
      new Promise((resolve) => {
        const look = () => {
          if (output.split(text).length <= times) return;
          waiting.delete(look);
          resolve();
        };
        waiting.add(look);
        look();
      }),
    write: (text) => child.stdin.write(text),
  };
}
