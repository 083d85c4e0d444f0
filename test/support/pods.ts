/**
 * Pods for tests: network namespaces on a bridge, removed after the test. Importing this gives the test file the rights
 * to make them; without root it runs itself once more inside a user namespace.
 */
import { spawnSync } from 'node:child_process';
import type { TestContext } from 'node:test';
import { createPodNetwork, type Pod, type PodNetwork } from '../../src/demo/pod-network.ts';
import { inUserNamespace, USER_NAMESPACE_HINT } from '../../src/demo/user-namespace.ts';

export type { Pod, PodNetwork };

const command = inUserNamespace([process.execPath, ...process.execArgv, ...process.argv.slice(1)]);
if (command !== null) {
  const { status } = spawnSync(command[0]!, command.slice(1), { stdio: 'inherit' });
  if (status !== 0) process.stderr.write(USER_NAMESPACE_HINT);
  process.exit(status ?? 1);
}

/** A pod network that is removed when the test ends. */
export async function podNetwork(t: Pick<TestContext, 'after'>): Promise<PodNetwork> {
  const network = await createPodNetwork();
  t.after(() => network.close());
  return network;
}
