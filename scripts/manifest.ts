// Puts deploy/culvert.yaml together: the kinds of objects, the DaemonSets with another control plane than istiod, and that
// control plane. A test fails while the file differs from what this makes of its parts: run `node scripts/manifest.ts`.
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const deploy = new URL('../deploy/', import.meta.url);
const read = (name: string) => readFileSync(new URL(name, deploy), 'utf8');
export const FILE = fileURLToPath(new URL('culvert.yaml', deploy));

const HEADER = `# A mesh from one manifest, on a cluster without istio's control plane:
#
#   kubectl apply -f deploy/culvert.yaml
#   kubectl label namespace NAME istio.io/dataplane-mode=ambient
#
# Made by scripts/manifest.ts from chart/culvert/crds.yaml, daemonset.yaml and control.yaml: edit those.
`;
const ISTIOD = 'istiod.istio-system.svc:15012';
const TRUST =
  '                # istiod. It must trust culvert-system/culvert-agent: CA_TRUSTED_NODE_ACCOUNTS, docs/install.md.\n';

export function makeManifest(): string {
  const daemonSets = read('daemonset.yaml');
  for (const part of [TRUST, ISTIOD]) {
    if (!daemonSets.includes(part)) throw new Error(`daemonset.yaml has no ${part.trim()}`);
  }
  const withoutHeader = daemonSets.slice(daemonSets.indexOf('apiVersion:'));
  const own = withoutHeader.replace(TRUST, '').replaceAll(ISTIOD, 'culvert-control.culvert-system.svc:15012');
  return `${HEADER}\n${[read('chart/culvert/crds.yaml'), own, read('control.yaml')].join('---\n')}`;
}

if (import.meta.main) writeFileSync(FILE, makeManifest());
