import assert from 'node:assert/strict';
import { test } from 'node:test';
import { dumpMesh } from '../../src/state/dump.ts';
import { loadLocal } from '../../src/state/local-file.ts';
import { capturedAsLocalFile, readCapturedMesh } from './captured-mesh.ts';
import { byAddress, byHostname, meshOf, service, workload } from './mesh-builder.ts';

const captured = readCapturedMesh();

test('a mesh read from the local file is dumped as the incumbent dumps the same mesh', async () => {
  const mesh = meshOf(await loadLocal(capturedAsLocalFile(captured), 'captured'));
  assert.deepEqual(JSON.parse(JSON.stringify(dumpMesh(mesh))), captured);
});

test('services may bring their endpoints themselves', async () => {
  const file = {
    ...captured,
    stagedServices: undefined,
    workloads: captured.workloads.map((each) => ({ ...each, services: {} })),
  };
  const mesh = meshOf(await loadLocal(JSON.stringify(file), 'captured'));
  assert.deepEqual(JSON.parse(JSON.stringify(dumpMesh(mesh))), captured);
});

test('what is no default is dumped under its name', () => {
  const mesh = meshOf({
    workloads: [
      workload('a', {
        network: 'n1',
        networkGateway: byAddress('192.0.2.1', 15009, 'n2'),
        waypoint: byHostname('wp.example.com', 'infra'),
        nativeTunnel: true,
        applicationTunnel: { protocol: 'NONE', port: null },
        locality: { zone: 'z' },
        services: { 'default/absent': { 80: 81 } },
      }),
    ],
    services: [
      service('s', {
        waypoint: byAddress('10.0.0.9'),
        weightedWaypoints: [{ destination: byAddress('10.0.0.9'), weight: 3 }],
        loadBalancer: { mode: 'Strict', routingPreferences: ['Zone'], healthPolicy: 'AllowAll' },
      }),
    ],
  });
  const dump = JSON.parse(JSON.stringify(dumpMesh(mesh)));
  const { waypoint, networkGateway, nativeTunnel, applicationTunnel, locality } = dump.workloads[0];
  assert.deepEqual(
    { waypoint, networkGateway, nativeTunnel, applicationTunnel, locality },
    {
      waypoint: { destination: 'infra/wp.example.com', hboneMtlsPort: 15008 },
      networkGateway: { destination: 'n2/192.0.2.1', hboneMtlsPort: 15009 },
      nativeTunnel: true,
      applicationTunnel: { protocol: 'NONE', port: null },
      locality: { region: '', zone: 'z', subzone: '' },
    },
  );
  assert.deepEqual(dump.services[0].weightedWaypoints, [
    { destination: { destination: '/10.0.0.9', hboneMtlsPort: 15008 }, weight: 3 },
  ]);
  assert.deepEqual(dump.services[0].loadBalancer, {
    mode: 'Strict',
    routingPreferences: ['Zone'],
    healthPolicy: 'AllowAll',
  });
  assert.deepEqual(dump.stagedServices, {
    'default/absent': {
      'Kubernetes//Pod/default/a': {
        workloadUid: 'Kubernetes//Pod/default/a',
        port: { 80: 81 },
        status: 'Healthy',
      },
    },
  });
});
