import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import protobuf from 'protobufjs/minimal.js';
import { type AuthorizationMessage, encodeAuthorization } from '../../src/control/mesh/authorization-messages.ts';
import { encodeService, encodeWorkload } from '../../src/control/mesh/encode-address.ts';
import {
  APP_PROTOCOLS,
  type GatewayAddress,
  IP_FAMILIES,
  MODES,
  SCOPES,
  type ServiceMessage,
  type WorkloadMessage,
} from '../../src/control/mesh/messages.ts';
import { formatCidr, parseCidr } from '../../src/netns/address.ts';
import { readAddress } from '../../src/xds/address.ts';
import { readAuthorization } from '../../src/xds/authorization.ts';

const keys = <T extends object>(of: T) => fc.constantFrom(...(Object.keys(of) as (keyof T)[]));
const text = fc.constantFrom('', 'a', 'name-1', 'ünïcode', 'x'.repeat(200));
const ip = fc.constantFrom('10.0.0.1', '0.0.0.0', '255.255.255.255', '::', 'fd00::1', '2001:db8::ffff');
const port = fc.integer({ min: 0, max: 65535 });
const hostname = fc.record({ kind: fc.constant('hostname' as const), namespace: text, hostname: text });
const address = fc.record({ kind: fc.constant('address' as const), network: text, ip });
const gateway: fc.Arbitrary<GatewayAddress> = fc.record({ destination: fc.oneof(hostname, address), port });
const key = fc.constantFrom('demo/a.org', 'demo/b.org', 'other/c.org');
const targets = fc.uniqueArray(fc.record({ port, target: port }), { selector: ({ port }) => port, maxLength: 3 });
const nullable = <T>(of: fc.Arbitrary<T>) => fc.option(of, { nil: null });

const workloads: fc.Arbitrary<WorkloadMessage> = fc.record({
  uid: fc.constantFrom('Kubernetes//Pod/demo/a', 'x'),
  name: text,
  namespace: text,
  addresses: fc.array(ip, { maxLength: 2 }),
  hostname: text,
  network: text,
  tunnel: fc.constantFrom('none', 'hbone', 'native'),
  trustDomain: text,
  serviceAccount: text,
  waypoint: nullable(gateway),
  networkGateway: nullable(gateway),
  node: text,
  canonicalName: text,
  canonicalRevision: text,
  isPod: fc.boolean(),
  workloadName: text,
  applicationTunnel: nullable(fc.record({ protocol: fc.constantFrom('NONE', 'PROXY'), port })),
  services: fc.array(fc.tuple(key, targets), { maxLength: 3 }).map((list) => new Map(list)),
  policies: fc.array(fc.constantFrom('demo/p', 'root/q'), { maxLength: 2 }),
  isHealthy: fc.boolean(),
  clusterId: text,
  locality: nullable(fc.record({ region: text, zone: text, subzone: text })),
  hostNetwork: fc.boolean(),
  capacity: nullable(fc.integer({ min: 0, max: 0xffff_ffff })),
});

const asRead = (given: GatewayAddress | null) =>
  given === null ? null : { destination: given.destination, hboneMtlsPort: given.port };
const portMap = (ports: readonly { port: number; target: number }[]) =>
  Object.fromEntries(ports.map(({ port, target }) => [port, target]));

test('an agent reads of a workload what was written of it', () => {
  fc.assert(
    fc.property(
      workloads.map((made) => structuredClone(made)),
      (message) => {
        const body = encodeWorkload(message);
        assert.deepEqual(body, encodeWorkload({ ...message, services: new Map([...message.services].reverse()) }));
        const read = readAddress(protobuf.Reader.create(body), body.length);
        assert.equal(read.kind, 'workload');
        if (read.kind !== 'workload') return;
        const { tunnel, addresses, isPod, isHealthy, hostNetwork, services, policies, locality, capacity, ...rest } =
          message;
        assert.deepEqual(
          read.update.services,
          Object.fromEntries([...services].map(([key, ports]) => [key, portMap(ports)])),
        );
        assert.deepEqual(read.update.workload, {
          ...rest,
          workloadIps: addresses,
          protocol: tunnel === 'none' ? 'TCP' : 'HBONE',
          nativeTunnel: tunnel === 'native',
          workloadType: isPod ? 'pod' : 'deployment',
          status: isHealthy ? 'Healthy' : 'Unhealthy',
          networkMode: hostNetwork ? 'HostNetwork' : 'Standard',
          authorizationPolicies: policies,
          locality: locality ?? { region: '', zone: '', subzone: '' },
          capacity: capacity ?? 1,
          waypoint: asRead(message.waypoint),
          networkGateway: asRead(message.networkGateway),
          applicationTunnel:
            message.applicationTunnel === null
              ? null
              : { protocol: message.applicationTunnel.protocol, port: message.applicationTunnel.port || null },
          trustDomain: message.trustDomain || 'cluster.local',
          serviceAccount: message.serviceAccount || 'default',
          clusterId: message.clusterId || 'Kubernetes',
        });
      },
    ),
  );
});

const services: fc.Arbitrary<ServiceMessage> = fc.record({
  name: text,
  namespace: text,
  hostname: fc.constantFrom('a.org', '*.b.org'),
  addresses: fc.array(fc.record({ network: text, ip, length: nullable(fc.integer({ min: 0, max: 31 })) }), {
    maxLength: 3,
  }),
  ports: fc.uniqueArray(fc.record({ port, target: port, protocol: keys(APP_PROTOCOLS) }), {
    selector: ({ port }) => port,
    maxLength: 3,
  }),
  subjectAltNames: fc.array(fc.constantFrom('spiffe://a', 'b'), { maxLength: 2 }),
  waypoint: nullable(gateway),
  weightedWaypoints: fc.array(fc.record({ destination: gateway, weight: fc.integer({ min: 0, max: 100 }) }), {
    maxLength: 2,
  }),
  loadBalancing: nullable(
    fc.record({
      preference: fc.array(keys(SCOPES), { maxLength: 3 }),
      mode: keys(MODES),
      healthPolicy: fc.constantFrom('OnlyHealthy', 'AllowAll'),
    }),
  ),
  ipFamilies: keys(IP_FAMILIES),
  isCanonical: fc.boolean(),
  ingressUseWaypoint: fc.boolean(),
  visibility: fc.constantFrom('Public', 'Namespace'),
});

const capitalized = (word: string) => word[0]!.toUpperCase() + word.slice(1);
const FAMILIES = { automatic: null, ipv4: 'IPv4', ipv6: 'IPv6', dual: 'Dual' };

test('an agent reads of a service what was written of it', () => {
  fc.assert(
    fc.property(
      services.map((made) => structuredClone(made)),
      (message) => {
        const body = encodeService(message);
        const read = readAddress(protobuf.Reader.create(body), body.length);
        const { addresses, loadBalancing, ports, weightedWaypoints } = message;
        const single = addresses.filter(({ length }) => length === null);
        const blocks = addresses.filter(({ length }) => length !== null);
        assert.deepEqual(read, {
          kind: 'service',
          definition: {
            name: message.name,
            namespace: message.namespace,
            hostname: message.hostname,
            vips: single.map(({ network, ip }) => `${network}/${ip}`),
            cidrVips: blocks.map(({ network, ip, length }) => ({
              network,
              cidr: formatCidr(parseCidr(`${ip}/${length}`)!),
            })),
            ports: portMap(ports),
            subjectAltNames: message.subjectAltNames,
            waypoint: asRead(message.waypoint),
            weightedWaypoints: weightedWaypoints.map(({ destination, weight }) => ({
              destination: asRead(destination),
              weight,
            })),
            loadBalancer:
              loadBalancing === null
                ? null
                : {
                    mode: loadBalancing.mode === 'unspecified' ? 'Standard' : capitalized(loadBalancing.mode),
                    routingPreferences: loadBalancing.preference.map(capitalized),
                    healthPolicy: loadBalancing.healthPolicy,
                  },
            ipFamilies: FAMILIES[message.ipFamilies],
            canonical: message.isCanonical,
            visibility: message.visibility,
          },
        });
      },
    ),
  );
});

const strings = fc.array(fc.constantFrom('*', 'a', 'a*', '*a', '**'), { minLength: 1, maxLength: 2 });
const blocks = fc.array(fc.constantFrom('10.0.0.1', '10.1.2.3/8', 'fd00::1/64', '::/0', '::ffff:10.0.0.1/104'), {
  minLength: 1,
  maxLength: 2,
});
const numbers = fc.array(port, { minLength: 1, maxLength: 2 });
const accounts = fc.array(fc.constantFrom('ns/sa', 'ns/a/b'), { minLength: 1, maxLength: 2 });
const match = fc.record(
  {
    ...{ namespaces: strings, notNamespaces: strings, principals: strings, notPrincipals: strings },
    ...{ sourceIps: blocks, notSourceIps: blocks, destinationIps: blocks, notDestinationIps: blocks },
    ...{ destinationPorts: numbers, notDestinationPorts: numbers },
    ...{ serviceAccounts: accounts, notServiceAccounts: accounts },
  },
  { requiredKeys: [] },
);
const policies: fc.Arbitrary<AuthorizationMessage> = fc.record({
  name: text,
  namespace: text,
  scope: fc.constantFrom('global', 'namespace', 'workload'),
  action: fc.constantFrom('ALLOW', 'DENY'),
  groups: fc.array(fc.array(fc.array(match, { maxLength: 2 }), { maxLength: 2 }), { maxLength: 2 }),
  isDryRun: fc.boolean(),
});

const STRINGS: Record<string, object> = {
  '*': { Presence: [] },
  a: { Exact: 'a' },
  'a*': { Prefix: 'a' },
  '*a': { Suffix: 'a' },
  '**': { Suffix: '*' },
};
const SCOPE = { global: 'Global', namespace: 'Namespace', workload: 'WorkloadSelector' };

test('an agent reads of a policy what was written of it', () => {
  fc.assert(
    fc.property(
      policies.map((made) => structuredClone(made)),
      (message) => {
        const body = encodeAuthorization(message);
        const { rules, ...rest } = readAuthorization(protobuf.Reader.create(body), body.length);
        assert.deepEqual(rest, {
          name: message.name,
          namespace: message.namespace,
          scope: SCOPE[message.scope],
          action: capitalized(message.action.toLowerCase()),
          dryRun: message.isDryRun,
          unintelligible: null,
        });
        const asked = rules.map((clauses) =>
          clauses.map((matches) =>
            matches.map((each) => Object.fromEntries(Object.entries(each).filter(([, list]) => list.length > 0))),
          ),
        );
        const wanted = (value: string | number): unknown => {
          if (typeof value === 'number') return value;
          if (value in STRINGS) return STRINGS[value];
          if (parseCidr(value) !== null) return formatCidr(parseCidr(value)!);
          const [namespace, ...account] = value.split('/');
          return { namespace, serviceAccount: account.join('/') };
        };
        const expected = message.groups.map((clauses) =>
          clauses.map((matches) =>
            matches.map((each) =>
              Object.fromEntries(
                Object.entries(each).map(([name, list]) => [name, (list as (string | number)[]).map(wanted)]),
              ),
            ),
          ),
        );
        assert.deepEqual(asked, expected);
      },
    ),
  );
});
