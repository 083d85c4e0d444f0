import { writeFileSync } from 'node:fs';
import type { Setting } from './setting.ts';
import { controlSettings } from './settings/control.ts';
import { nodeAgentSettings } from './settings/node-agent.ts';
import { chapters, families } from './settings.ts';

/**
 * The text of docs/configuration.md, made from the table of settings. Run this file to write it:
 * `node src/config/document.ts`; a test fails while the file differs.
 */
export function renderConfiguration(): string {
  const parts = Object.entries<Record<string, Setting>>(chapters).map(([title, rows]) => [
    `## ${title}`,
    ...Object.values(rows).map(describeSetting),
    ...Object.values(families)
      .filter((family) => family.chapter === title)
      .map(describeFamily),
  ]);
  const nodeAgent = Object.values<Setting>(nodeAgentSettings).map(describeSetting);
  const control = Object.values<Setting>(controlSettings).map(describeSetting);
  const all = [INTRODUCTION, ...parts.flat(), PROXY_CONFIG, NODE_AGENT, ...nodeAgent, OWN_CONTROL_PLANE, ...control];
  return `${all.join('\n\n')}\n`;
}

/** Where the text belongs. */
export const DOCUMENT = new URL('../../docs/configuration.md', import.meta.url);

const INTRODUCTION = `# Configuration

The agent is configured by environment variables. Those without the prefix \`CULVERT_\` have the names, formats and defaults
of ztunnel, so its manifests work unchanged.

All values are checked before anything is started. When some are not valid the agent names all of them, each with what was
given and what is accepted, and ends. An empty text, name or path is the same as none; for any other type it is not valid.

- **Durations** are numbers with a unit: \`250ms\`, \`10s\`, \`5m\`, \`1h30m\`, \`7d\`.
- **Bytes** are numbers, or numbers with \`Ki\`, \`Mi\` or \`Gi\`.
- **Booleans** are \`true\` or \`false\`.
- Where only one value is accepted, the setting belongs to a feature that this version does not have.

The admin server's \`/config_dump\` shows the values in force in its section \`config\`. Secrets are masked there and in errors.

<!-- Made from src/config/settings.ts by src/config/document.ts. -->`;

const PROXY_CONFIG = `## Proxy configuration

\`defaultConfig\` of the file \`./etc/istio/config/mesh\`, then \`PROXY_CONFIG\` over it. These fields are read; the others belong
to other proxies and are passed over. The variable that is named beside a field wins over it.

- \`discoveryAddress\`: \`XDS_ADDRESS\`
- \`proxyAdminPort\`: \`CULVERT_ADMIN_PORT\`
- \`statsPort\`: \`CULVERT_STATS_PORT\`
- \`concurrency\`: \`ZTUNNEL_WORKER_THREADS\`; a number of threads, or 0 for one per CPU
- \`proxyMetadata\`: \`ISTIO_META_\`…, name by name; a prefix \`ISTIO_META_\` is removed`;

const NODE_AGENT = `## Node agent

The settings of \`culvert cni\`. Those without the prefix \`CULVERT_\` have the names and formats of istio-cni; where a default
differs, it is what istio-cni’s chart sets.`;

const OWN_CONTROL_PLANE = `## Own control plane

The settings of \`culvert control\`. Those without the prefix \`CULVERT_\` have the names, formats and defaults of istiod.`;

function describeSetting(row: Setting): string {
  const title = row.overriddenBy === undefined ? `\`${row.env}\`` : `\`${row.env}\` (\`${row.overriddenBy}\` wins)`;
  const unit = row.unit === undefined ? '' : `; unit: ${row.unit}`;
  const byDefault = row.default === null ? (row.otherwise ?? 'none') : `\`${row.default}\``;
  return entry(title, row.meaning, [
    `Accepted: ${row.type.accepts}${unit}`,
    `Default: ${byDefault}`,
    `Why: ${row.why}`,
  ]);
}

function describeFamily({ env, accepts, meaning, why }: (typeof families)[keyof typeof families]): string {
  return entry(`\`${env}\`…`, meaning, [`Accepted: ${accepts}`, 'Default: none', `Why: ${why}`]);
}

function entry(title: string, meaning: string, facts: readonly string[]): string {
  return `### ${title}\n\n${meaning}\n\n${facts.map((fact) => `- ${fact}`).join('\n')}`;
}

if (import.meta.main) writeFileSync(DOCUMENT, renderConfiguration());
