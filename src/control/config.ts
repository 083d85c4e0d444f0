import { type Environment, readTable, type ValueOf } from '../config/config.ts';
import { Problems } from '../config/problems.ts';
import { controlSettings } from '../config/settings/control.ts';
import { messageOf } from '../errors.ts';
import { readVisibility } from './mesh/read-visibility.ts';
import type { ServiceEntryVisibility } from './mesh/settings.ts';

type Table = typeof controlSettings;
type Given = { readonly [Key in keyof Table]: ValueOf<Table[Key]> };

/** The configuration of the control plane: every row of its table, and what follows from it. */
export type ControlConfig = Omit<
  Given,
  'objectsDir' | 'kubernetesHost' | 'rootNamespace' | 'trustedAccounts' | 'serviceEntryVisibility'
> & {
  readonly serviceEntryVisibility: ServiceEntryVisibility | null;
  readonly source:
    | { readonly kind: 'folder'; readonly folder: string }
    | { readonly kind: 'kubernetes'; readonly host: string };
  readonly rootNamespace: string;
  readonly trustedAccounts: readonly string[];
};

/** @throws CulvertError CONFIG_INVALID naming every bad value */
export async function loadControlConfig(env: Environment): Promise<ControlConfig> {
  const problems = new Problems();
  const given = readTable(env, controlSettings, problems) as Given;
  const { objectsDir, kubernetesHost, tokensFile, podNamespace } = given;
  if (objectsDir === null && kubernetesHost === null) {
    problems.add(
      `neither ${controlSettings.objectsDir.env} nor ${controlSettings.kubernetesHost.env} is set`,
      undefined,
      'one of them: a folder of objects, or the API server that Kubernetes names to every pod',
    );
  }
  if (objectsDir === null && tokensFile !== null) {
    problems.add(controlSettings.tokensFile.env, tokensFile, 'nothing in Kubernetes, which reviews tokens itself');
  }
  if (given.defaultCertificateTtl > given.maxCertificateTtl) {
    problems.add(controlSettings.defaultCertificateTtl.env, undefined, 'no more than MAX_WORKLOAD_CERT_TTL');
  }
  if (given.debounceAfter > given.debounceMax) {
    problems.add(controlSettings.debounceAfter.env, undefined, 'no more than PILOT_DEBOUNCE_MAX');
  }
  let serviceEntryVisibility: ServiceEntryVisibility | null = null;
  try {
    if (given.serviceEntryVisibility !== null)
      serviceEntryVisibility = await readVisibility(given.serviceEntryVisibility);
  } catch (error) {
    const what = 'what istiod accepts as serviceEntryVisibility';
    problems.add(controlSettings.serviceEntryVisibility.env, undefined, `${what}: ${messageOf(error)}`);
  }
  problems.throwIfAny();
  return {
    ...given,
    serviceEntryVisibility,
    source:
      objectsDir === null ? { kind: 'kubernetes', host: kubernetesHost! } : { kind: 'folder', folder: objectsDir },
    rootNamespace: given.rootNamespace ?? podNamespace,
    trustedAccounts: given.trustedAccounts ?? [`${podNamespace}/culvert-agent`],
  };
}
