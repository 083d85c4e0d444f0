/** The one cluster of a run, whichever stories are told on it. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type Cluster, noCluster, startCluster, stopCluster } from './cluster.ts';

export const skip = noCluster();
export let cluster: Cluster;
export let folder: string;

const image = fileURLToPath(new URL('../../dist/culvert-image.tar', import.meta.url));

before(async () => {
  if (skip) return;
  cluster = startCluster();
  await cluster.loadImage(image);
  folder = mkdtempSync(join(tmpdir(), 'culvert-cluster-'));
});

after(() => {
  if (skip) return;
  stopCluster();
  if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
});
