/**
 * The benchmarks: stock load generators, ratios within one run, one table.
 *
 *     npm run bench -- [NAME …] [--quick] [--workers=N]
 */

import { mkdtempSync, rmSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { control } from './control.ts';
import { controlCa } from './control-ca.ts';
import { controlMesh } from './control-mesh.ts';
import { enrol } from './enrol.ts';
import { fairness } from './fairness.ts';
import type { Bench } from './harness/bench.ts';
import { type Figure, formatTable, meets } from './harness/figures.ts';
import { identityBench } from './identity.ts';
import { memory } from './memory.ts';
import { mesh } from './mesh.ts';
import { pods } from './pods.ts';
import { policy } from './policy.ts';
import { relay } from './relay.ts';
import { scale } from './scale.ts';
import { tunnels } from './tunnels.ts';
import { xds } from './xds.ts';

const benches: Readonly<Record<string, Bench>> = {
  relay,
  tunnels,
  pods,
  fairness,
  enrol,
  memory,
  policy,
  identity: identityBench,
  xds,
  mesh,
  scale,
  control,
  'control-mesh': controlMesh,
  'control-ca': controlCa,
};

/** What a node of two processors gets by default (spec §15.1). */
const DEFAULT_WORKERS = '2';

function parsed() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: { quick: { type: 'boolean', default: false }, workers: { type: 'string', default: DEFAULT_WORKERS } },
    });
  } catch (error) {
    return refuse((error as Error).message);
  }
}

function refuse(why: string): never {
  process.stderr.write(
    `${why}\nusage: npm run bench -- [${Object.keys(benches).join('] [')}] [--quick] [--workers=N]\n`,
  );
  process.exit(2);
}

const { positionals: chosen, values } = parsed();
const { quick } = values;
const workers = Number(values.workers);
const unknown = chosen.find((name) => !(name in benches));
if (unknown !== undefined) refuse(`no benchmark ${unknown}`);
if (!Number.isInteger(workers) || workers < 1) refuse(`--workers=${values.workers} is no number of threads`);
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  // The exit handlers end what was started.
  process.on(signal, () => process.exit(1));
}

const folder = mkdtempSync(join(tmpdir(), 'culvert-bench-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
const progress = (line: string) => process.stderr.write(`  ${line}\n`);
const figures: Figure[] = [];
for (const [name, bench] of Object.entries(benches)) {
  if (chosen.length === 0 || chosen.includes(name))
    figures.push(...(await bench({ folder, quick, workers, progress })));
}

const processor = cpus();
process.stdout.write(
  `\n${processor.length} × ${processor[0]?.model.trim()}, Node ${process.versions.node}${quick ? ', --quick' : ''}\n\n`,
);
process.stdout.write(`${formatTable(figures)}\n`);
if (!figures.every(({ value, bound }) => meets(value, bound))) {
  process.stdout.write('\nA figure was missed. On a busy machine run it again before looking for the reason.\n');
  process.exitCode = 1;
}
