import type { TestContext } from 'node:test';
import type { TokenSource } from '../../src/config/config.ts';
import { Secret } from '../../src/config/secret.ts';
import type { ControlPlaneServer } from '../../src/control-plane/grpc.ts';
import { type IstioCaOptions, openIstioCa } from '../../src/identity/istio-ca.ts';
import { makeTestCa, startTestCa, type TestCa, type TestCaOptions } from '../support/istio-ca-server.ts';
import { scratchFolder } from './scratch.ts';

export const IDENTITY = 'spiffe://cluster.local/ns/default/sa/web';

/** A CA that ends with the test. */
export async function testCa(t: TestContext, options: Partial<TestCaOptions> = {}): Promise<TestCa> {
  const folder = options.folder ?? scratchFolder(t);
  if (options.folder === undefined) makeTestCa(folder);
  const ca = await startTestCa({ folder, ...options });
  t.after(() => ca.stop());
  return ca;
}

export function serverOf(
  ca: Pick<TestCa, 'address' | 'rootsFile'>,
  changes: Partial<ControlPlaneServer> = {},
): ControlPlaneServer {
  return {
    prefix: 'CA',
    address: ca.address,
    roots: { kind: 'file', path: ca.rootsFile },
    altHostname: null,
    token: { kind: 'none' },
    clusterId: 'Kubernetes',
    headers: [],
    ...changes,
  };
}

export function literal(token: string): TokenSource {
  return { kind: 'literal', token: new Secret(token) };
}

/** A client that ends with the test, and what it logged. */
export async function clientOf(t: TestContext, server: ControlPlaneServer, changes: Partial<IstioCaOptions> = {}) {
  const logged: string[] = [];
  const client = await openIstioCa({
    server,
    ttl: 86_400_000,
    account: { namespace: 'istio-system', serviceAccount: 'ztunnel' },
    log: { warn: (_, message, fields) => logged.push(`${message} ${JSON.stringify(fields ?? {})}`) },
    ...changes,
  });
  t.after(() => client.close());
  return { client, logged };
}
