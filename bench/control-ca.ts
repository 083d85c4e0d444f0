/** The control plane's CA: certificates for each second of processor time, authentication and authorization included. */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Client, credentials, Metadata } from '@grpc/grpc-js';
import { CA_FILE_NAMES } from '../src/identity/ca-folder.ts';
import { encodeCertificateRequest } from '../src/identity/ca-messages.ts';
import { toPem } from '../src/identity/pem.ts';
import { caFilesOf, createRoot } from '../src/identity/self-signed-root.ts';
import { signCertificateRequest } from '../src/identity/signing.ts';
import { generateWorkloadKey } from '../src/identity/workload-key.ts';
import type { Bench } from './harness/bench.ts';

const AGENTS = 100;
/** Together no more tokens under review than one address may have. */
const CONNECTIONS = 2;
/** As many as an agent has underway. */
const UNDERWAY = 8;
const METHOD = '/istio.v1.auth.IstioCertificateService/CreateCertificate';

export const controlCa: Bench = async ({ folder, quick, progress }) => {
  progress('control-ca: certificates');
  const rootDir = join(folder, 'control-ca');
  mkdirSync(rootDir);
  const files = caFilesOf(await createRoot('cluster.local', Date.now()));
  for (const [file, name] of Object.entries(CA_FILE_NAMES)) {
    writeFileSync(join(rootDir, name), files[file as keyof typeof files], { mode: 0o600 });
  }
  const peer = fork(new URL('./control-ca-peer.ts', import.meta.url), [rootDir]);
  try {
    const [{ port, rootsPem }] = (await once(peer, 'message')) as [{ port: number; rootsPem: string }];
    const requests = await Promise.all(Array.from({ length: AGENTS }, (_, index) => request(index)));
    const clients = Array.from({ length: CONNECTIONS }, () => connect(port, rootsPem));
    const usage = async () => {
      const answer = once(peer, 'message');
      peer.send('usage');
      return (await answer)[0] as { cpuSeconds: number; reviews: number };
    };
    await load(clients, requests, AGENTS);
    const count = quick ? 500 : 5000;
    const before = await usage();
    const start = performance.now();
    await load(clients, requests, count);
    const seconds = (performance.now() - start) / 1000;
    const after = await usage();
    for (const client of clients) client.close();
    const value = count / (after.cpuSeconds - before.cpuSeconds);
    return [
      {
        what: `control-ca, ${count} certificates for ${AGENTS} agents`,
        measured: `${Math.round(count / seconds)}/s, ${after.reviews} reviews of tokens`,
        value,
        printed: `${Math.round(value)} per CPU second`,
        bound: { atLeast: 200 },
      },
    ];
  } finally {
    peer.kill();
  }
};

function connect(port: number, rootsPem: string): Client {
  return new Client(`127.0.0.1:${port}`, credentials.createSsl(Buffer.from(rootsPem)), {
    'grpc.use_local_subchannel_pool': 1,
    'grpc.ssl_target_name_override': 'localhost',
  });
}

/** Of an agent with a token of its own, for a pod with a key of its own. */
async function request(index: number): Promise<{ readonly message: Buffer; readonly metadata: Metadata }> {
  const identity = `spiffe://cluster.local/ns/default/sa/app-${index}`;
  const { privateKey, publicKey } = await generateWorkloadKey();
  const csr = toPem('CERTIFICATE REQUEST', await signCertificateRequest(privateKey, identity, publicKey));
  const metadata = new Metadata();
  metadata.set('authorization', `Bearer token-${index}`);
  return {
    message: encodeCertificateRequest({ csr, validitySeconds: 86_400, impersonatedIdentity: identity }),
    metadata,
  };
}

async function load(
  clients: readonly Client[],
  requests: readonly Awaited<ReturnType<typeof request>>[],
  count: number,
): Promise<void> {
  let sent = 0;
  const raw = (bytes: Buffer) => bytes;
  async function keepAsking(client: Client): Promise<void> {
    while (sent < count) {
      const { message, metadata } = requests[sent++ % requests.length]!;
      await new Promise<void>((resolve, reject) => {
        client.makeUnaryRequest(METHOD, raw, raw, message, metadata, (error) => (error ? reject(error) : resolve()));
      });
    }
  }
  await Promise.all(clients.flatMap((client) => Array.from({ length: UNDERWAY }, () => keepAsking(client))));
}
