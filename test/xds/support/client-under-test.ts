/** A client that keeps a store in step with a control plane of the test. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { Secret } from '../../../src/config/secret.ts';
import type { ControlPlaneServer } from '../../../src/control-plane/grpc.ts';
import { createLogger } from '../../../src/log/logger.ts';
import { createLocalLayer, type LocalLayer } from '../../../src/state/local-layer.ts';
import type { MeshStore } from '../../../src/state/mesh-state.ts';
import { createMeshState } from '../../../src/state/store.ts';
import { startXdsClient, type XdsClient, type XdsClientOptions } from '../../../src/xds/client.ts';
import { startIstiod, type TestIstiod, type TestIstiodOptions } from '../../support/istiod.ts';
import { PATIENCE_MS } from '../../support/patience.ts';

export interface ClientUnderTest {
  readonly client: XdsClient;
  readonly store: MeshStore;
  readonly local: LocalLayer;
  /** Lines that were logged. */
  readonly lines: readonly string[];
  readonly terminations: readonly string[];
  readonly messages: readonly string[];
  /** Waits until it is so. */
  until(what: string, holds: () => boolean): Promise<void>;
}

export const NODE = {
  id: 'ztunnel~1.1.1.1~agent.istio-system~istio-system.svc.cluster.local',
  metadata: { NAME: 'agent' },
};

/** A control plane that ends with the test. */
export async function istiod(t: TestContext, options: TestIstiodOptions = {}): Promise<TestIstiod> {
  const server = await startIstiod(options);
  t.after(() => server.stop());
  return server;
}

export function startClient(
  t: TestContext,
  to: { readonly address: string; readonly rootPem: string },
  changes: Partial<ControlPlaneServer> & {
    readonly localNode?: string;
    readonly options?: Partial<XdsClientOptions>;
  } = {},
): ClientUnderTest {
  const { localNode = '', options = {}, ...server } = changes;
  const lines: string[] = [];
  const terminations: string[] = [];
  const messages: string[] = [];
  const store = createMeshState({ localNode });
  const local = createLocalLayer(store, {
    hasAddress: (name) => client.hasAddress(name),
    hasPolicy: (name) => client.hasPolicy(name),
  });
  const client: XdsClient = startXdsClient({
    server: {
      prefix: 'XDS',
      address: to.address,
      roots: { kind: 'inline', pem: to.rootPem },
      altHostname: null,
      token: { kind: 'none' },
      clusterId: 'Kubernetes',
      headers: [],
      ...server,
    },
    node: NODE,
    store,
    underlay: local,
    localNode,
    onDemand: false,
    log: createLogger({ format: 'plain', level: 'info', write: (line) => void lines.push(line) }),
    counted: {
      terminated: (reason) => void terminations.push(reason),
      message: (typeUrl) => void messages.push(typeUrl),
    },
    ...options,
  });
  t.after(() => client.close());
  return {
    client,
    store,
    local,
    lines,
    terminations,
    messages,
    async until(what, holds) {
      for (const end = performance.now() + PATIENCE_MS; !holds(); ) {
        if (performance.now() > end) {
          throw new Error(`not ${what}; ${JSON.stringify(client.status(), null, 1)}\n${lines.join('\n')}`);
        }
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    },
  };
}

export function token(text: string): ControlPlaneServer['token'] {
  return { kind: 'literal', token: new Secret(text) };
}

/** A folder that goes with the test. */
export function folder(t: TestContext): { path: string; write(name: string, text: string): string } {
  const path = mkdtempSync(join(tmpdir(), 'culvert-xds-'));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return {
    path,
    write(name, text) {
      writeFileSync(join(path, name), text);
      return join(path, name);
    },
  };
}

/** A workload as a control plane sends it. */
export function workload(name: string, more: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    workload: {
      uid: uid(name),
      name,
      namespace: 'demo',
      addresses: [Buffer.of(10, 0, 0, 1)],
      node: 'node-a',
      tunnelProtocol: 'HBONE',
      workloadName: name,
      ...more,
    },
  };
}

export function uid(name: string): string {
  return `Kubernetes//Pod/demo/${name}`;
}

export function service(name: string, more: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    service: {
      name,
      namespace: 'demo',
      hostname: hostname(name),
      addresses: [{ network: '', address: Buffer.of(10, 96, 0, 1) }],
      ports: [{ servicePort: 80, targetPort: 8080 }],
      canonical: true,
      ...more,
    },
  };
}

export function hostname(name: string): string {
  return `${name}.demo.svc.cluster.local`;
}

export function policy(name: string, more: Record<string, unknown> = {}): Record<string, unknown> {
  return { name, namespace: 'demo', scope: 'NAMESPACE', action: 'DENY', rules: [], ...more };
}

/** The names of what a store holds. */
export function namesIn(store: MeshStore): { addresses: string[]; policies: string[] } {
  return {
    addresses: [
      ...[...store.workloads()].map((each) => each.uid),
      ...[...store.services()].map((each) => `${each.namespace}/${each.hostname}`),
    ].sort(),
    policies: [...store.policies()].map(([key]) => key).sort(),
  };
}

export function holds(store: MeshStore, addresses: readonly string[], policies: readonly string[]): boolean {
  return isDeepStrictEqual(namesIn(store), { addresses: [...addresses].sort(), policies: [...policies].sort() });
}
