import { type Environment, readTable, type ValueOf } from '../config/config.ts';
import { Problems } from '../config/problems.ts';
import { nodeAgentSettings } from '../config/settings/node-agent.ts';
import { messageOf } from '../errors.ts';
import { type EnrolmentSelectors, parseSelectors } from './enrolment/selectors.ts';

type Table = typeof nodeAgentSettings;
type Given = { readonly [Key in keyof Table]: ValueOf<Table[Key]> };

/** The configuration of the node agent: every row of its table, and what follows from it. */
export type NodeAgentConfig = Omit<Given, 'enablementSelector' | 'nodeName' | 'kubernetesHost'> & {
  readonly nodeName: string;
  readonly kubernetesHost: string;
  readonly selectors: EnrolmentSelectors;
};

/** @throws CulvertError CONFIG_INVALID naming every bad value */
export async function loadNodeAgentConfig(env: Environment): Promise<NodeAgentConfig> {
  const problems = new Problems();
  const given = readTable(env, nodeAgentSettings, problems) as Given;
  for (const key of ['nodeName', 'kubernetesHost'] as const) {
    if (given[key] === null) problems.add(`${nodeAgentSettings[key].env} is not set`, undefined, REQUIRED[key]);
  }
  let selectors: EnrolmentSelectors = [];
  try {
    selectors = await parseSelectors(given.enablementSelector);
  } catch (error) {
    problems.add(nodeAgentSettings.enablementSelector.env, undefined, `a list of label selectors: ${messageOf(error)}`);
  }
  problems.throwIfAny();
  return { ...given, nodeName: given.nodeName!, kubernetesHost: given.kubernetesHost!, selectors };
}

const REQUIRED = {
  nodeName: 'the name of this node, in a manifest the field spec.nodeName of the pod',
  kubernetesHost: 'the host of the API server, which Kubernetes gives to every pod',
};
