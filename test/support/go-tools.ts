/** Programs that are not packaged, built once from their Go modules into the folder in which the tests keep Kubernetes. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

const MODULES = {
  helm: 'helm.sh/helm/v3/cmd/helm@v3.18.4',
  cnitool: 'github.com/containernetworking/cni/cnitool@v1.3.0',
} as const;

const folder = join(process.env.KUBE_CACHE ?? join(homedir(), '.cache/culvert-kube'), 'bin');

/** Where the program is, whether it has been built or not. */
export function goTool(name: keyof typeof MODULES): string {
  return join(folder, name);
}

/** Why a program cannot be had here; false when it can. For `{ skip }`. */
export function noGoTool(name: keyof typeof MODULES): string | false {
  const hasGo = (process.env.PATH ?? '').split(':').some((path) => existsSync(join(path, 'go')));
  return existsSync(goTool(name)) || hasGo ? false : `there is no ${name}, and no Go to build it with`;
}

/** Builds the program unless it is there: half a minute to some minutes. @throws when there is no Go, or no module */
export function buildGoTool(name: keyof typeof MODULES): string {
  const file = goTool(name);
  if (existsSync(file)) return file;
  mkdirSync(folder, { recursive: true });
  const env = { ...process.env, GOBIN: folder, CGO_ENABLED: '0', GOFLAGS: '' };
  const built = spawnSync('go', ['install', '-p', '1', '-ldflags', '-s -w', MODULES[name]], { env, encoding: 'utf8' });
  if (built.status !== 0) throw new Error(`cannot build ${MODULES[name]}: ${built.error?.message ?? built.stderr}`);
  return file;
}
