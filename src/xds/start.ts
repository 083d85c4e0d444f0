import type { Config } from '../config/config.ts';
import type { Logger } from '../log/logger.ts';
import { XDS } from '../metrics/families.ts';
import type { Registry } from '../metrics/registry.ts';
import type { LocalLayer } from '../state/local-layer.ts';
import type { MeshStore } from '../state/mesh-state.ts';
import { startXdsClient, type XdsClient } from './client.ts';
import { nodeOf } from './node.ts';

/** Starts the client as the settings say and counts what it does. */
export function startXds(options: {
  readonly config: Config;
  /** `https://host[:port]` */
  readonly address: string;
  readonly store: MeshStore;
  readonly underlay: LocalLayer;
  readonly registry: Registry;
  readonly log: Logger;
}): XdsClient {
  const { config, address, store, underlay, registry, log } = options;
  const terminations = registry.counter(XDS.terminations);
  const messages = registry.counter(XDS.messages);
  const bytes = registry.counter(XDS.bytes);
  const client = startXdsClient({
    server: {
      prefix: 'XDS',
      address,
      roots: config.xdsRootCert,
      altHostname: config.altXdsHostname,
      token: config.authToken,
      clusterId: config.clusterId,
      headers: config.xdsHeaders,
    },
    node: nodeOf(config),
    store,
    underlay,
    localNode: config.localNode ?? '',
    onDemand: config.xdsOnDemand,
    log,
    counted: {
      terminated: (reason) => terminations.add(1, reason),
      message(typeUrl, length) {
        messages.add(1, typeUrl);
        bytes.add(length, typeUrl);
      },
    },
  });
  const perType = (value: (type: ReturnType<XdsClient['types']>[number]) => number | null) => () =>
    client.types().flatMap((type) => {
      const found = value(type);
      return found === null ? [] : [{ labels: [type.typeUrl], value: found }];
    });
  registry.computed(XDS.connected, () => [{ labels: [], value: client.isConnected() ? 1 : 0 }]);
  registry.computed(
    XDS.resources,
    perType(({ size }) => size),
  );
  registry.computed(
    XDS.rejected,
    perType(({ rejected }) => rejected.size),
  );
  registry.computed(
    XDS.lastPush,
    perType(({ lastPush }) => lastPush && lastPush.at / 1000),
  );
  return client;
}
