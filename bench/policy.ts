/**
 * What authorization costs: judging a connection that no rule matches, for policies of one rule to ten thousand; and
 * what a compiled policy takes of time and memory.
 */
import { compileScope, joinScopes, type PolicyEntry } from '../src/policy/compile.ts';
import { evaluate } from '../src/policy/evaluate.ts';
import type { PolicyTable } from '../src/policy/table.ts';
import {
  type CompiledPolicies,
  EMPTY_MATCH,
  type Policy,
  type PolicyConnection,
  type PolicyMatch,
} from '../src/policy/types.ts';
import type { PodRuntime } from '../src/worker/pod-runtime.ts';
import { PolicyReview } from '../src/worker/policy-review.ts';
import type { Bench } from './harness/bench.ts';
import type { Figure } from './harness/figures.ts';

/** Judging may take so long, in µs, whatever the number of rules. */
const LONGEST = 50;
/** No step of compiling may hold the loop of the control thread longer, the collector's work included, in ms. */
const LONGEST_STEP = 20;
const RULES = [1, 100, 10_000];
const RULES_PER_POLICY = 5;

/** What rules ask for. None of them matches the connection below. */
const kinds: Readonly<Record<string, (rule: number) => Partial<PolicyMatch>>> = {
  'exact principal': (rule) => ({ principals: [{ Exact: `cluster.local/ns/app-${rule % 100}/sa/client-${rule}` }] }),
  'prefix of principal': (rule) => ({ principals: [{ Prefix: `cluster.local/ns/app-${rule}/` }] }),
  namespace: (rule) => ({ namespaces: [{ Exact: `app-${rule}` }] }),
  'service account': (rule) => ({ serviceAccounts: [{ namespace: 'shop', serviceAccount: `client-${rule}` }] }),
  'source address': (rule) => ({ sourceIps: [`10.${rule >> 8}.${rule & 255}.0/24`] }),
  port: (rule) => ({ destinationPorts: [10_000 + rule] }),
  'own namespace, another port': (rule) => ({ namespaces: [{ Exact: 'shop' }], destinationPorts: [10_000 + rule] }),
  'own port, another principal': (rule) => ({
    destinationPorts: [8080],
    principals: [{ Exact: `cluster.local/ns/shop/sa/client-${rule}` }],
  }),
  'no field but one that must not be': () => ({ notPrincipals: [{ Presence: [] }] }),
};

const connection: PolicyConnection = {
  sourceIp: '172.16.4.9',
  sourceIdentity: 'spiffe://cluster.local/ns/shop/sa/checkout',
  destinationIp: '172.16.7.1',
  destinationPort: 8080,
};

export const policy: Bench = async ({ quick, progress }) => {
  const figures: Figure[] = [];
  for (const [kind, matchOf] of Object.entries(kinds)) {
    const times: number[] = [];
    for (const count of RULES) times.push(judge(compiled(entries(count, matchOf)).policies, quick));
    progress(`${kind}: ${times.map((time) => time.toFixed(2)).join(', ')} µs`);
    const worst = times.at(-1)!;
    const isIndexed = kind !== 'no field but one that must not be';
    figures.push({
      what: `policy, no match: ${kind}`,
      measured: RULES.map((count, index) => `${count} rules ${times[index]!.toFixed(2)} µs`).join(', '),
      value: worst,
      printed: `${worst.toFixed(2)} µs`,
      // What cannot be filed has to be visited, rule by rule; how long that takes is reported.
      bound: isIndexed ? { atMost: LONGEST } : null,
    });
  }
  figures.push(await reviewing(), compiling(), memory());
  return figures;
};

/** Microseconds per judgement: the best tenth of a second of several. */
function judge(policies: CompiledPolicies, quick: boolean): number {
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < (quick ? 1 : 5); round++) {
    const start = performance.now();
    let judged = 0;
    let elapsed = 0;
    do {
      for (let i = 0; i < 50; i++) {
        if (evaluate(policies, connection).kind !== 'allow') throw new Error('a rule matched');
      }
      judged += 50;
      elapsed = performance.now() - start;
    } while (elapsed < (quick ? 20 : 100));
    best = Math.min(best, (elapsed * 1000) / judged);
  }
  return best;
}

/** Live connections judged anew when a policy changes; none of them is denied. Their sockets are not what this is about. */
async function reviewing(): Promise<Figure> {
  const { policies } = compiled(entries(10_000, (rule) => Object.values(kinds)[rule % 8]!(rule)));
  const count = 50_000;
  let isOver = false;
  const live = {
    listener: 'inbound-hbone',
    context: {},
    isOver: false,
    policies: () => policies,
    policyFacts: () => connection,
    cut() {
      throw new Error('a rule matched');
    },
  };
  const pod = {
    policies,
    connections: new Set(Array.from({ length: count }, () => ({ ...live }))),
    takeUndecided() {
      isOver = true;
      return [];
    },
  };
  const start = cpuTime();
  let longest = 0;
  new PolicyReview().begin(pod as unknown as PodRuntime);
  for (let before = start; ; ) {
    const now = cpuTime();
    longest = Math.max(longest, now - before);
    before = now;
    if (isOver) break;
    await new Promise((resolve) => setImmediate(resolve));
  }
  return {
    what: `policy, ${count} live connections judged anew by 10000 rules`,
    measured: `${(((cpuTime() - start) * 1000) / count).toFixed(2)} µs each`,
    value: longest,
    printed: `longest stall ${longest.toFixed(1)} ms`,
    bound: { atMost: LONGEST_STEP },
  };
}

function compiling(): Figure {
  const mixed = entries(10_000, (rule) => Object.values(kinds)[rule % 8]!(rule));
  let longest = 0;
  let total = 0;
  // The first time is not yet compiled code, as on the day when the policies come.
  for (let round = 0; round < 3; round++) {
    const outcome = compiled(mixed);
    total = outcome.total;
    longest = Math.max(longest, outcome.longestStep);
  }
  return {
    what: 'policy, compiling 2000 policies of 5 rules',
    measured: `${total.toFixed(1)} ms in all, in slices`,
    value: longest,
    printed: `longest step ${longest.toFixed(1)} ms`,
    bound: { atMost: LONGEST_STEP },
  };
}

function memory(): Figure {
  const count = 2000;
  const { policies } = compiled(entries(count * RULES_PER_POLICY, (rule) => Object.values(kinds)[rule % 8]!(rule)));
  const bytes = [...policies.deny, ...policies.allow].reduce((sum, table) => sum + sizeOf(table), 0);
  return {
    what: 'policy, memory of a compiled policy of 5 rules',
    measured: `${count} policies ${(bytes / 1024).toFixed(0)} KiB, once per process`,
    value: bytes / count,
    printed: `${(bytes / count).toFixed(0)} bytes`,
    bound: { atMost: 2048 },
  };
}

function sizeOf({ words, text }: PolicyTable): number {
  return words.byteLength + text.byteLength;
}

/** Of the processor, in ms: on a busy machine the clock tells how long others were running. */
function cpuTime(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}

function compiled(list: readonly PolicyEntry[]) {
  const start = cpuTime();
  let longestStep = 0;
  const work = compileScope(list);
  for (let before = start; ; ) {
    const step = work.next();
    const after = cpuTime();
    longestStep = Math.max(longestStep, after - before);
    if (step.done) return { policies: joinScopes([step.value]), longestStep, total: after - start };
    before = after;
  }
}

/** DENY policies of the same namespace: all are asked, and none matches. */
function entries(rules: number, matchOf: (rule: number) => Partial<PolicyMatch>): PolicyEntry[] {
  const count = Math.ceil(rules / RULES_PER_POLICY);
  return Array.from({ length: count }, (_, index): PolicyEntry => {
    const first = index * RULES_PER_POLICY;
    const own = Math.min(RULES_PER_POLICY, rules - first);
    const made: Policy = {
      name: `policy-${index}`,
      namespace: 'shop',
      scope: 'Namespace',
      action: 'Deny',
      dryRun: false,
      unintelligible: null,
      rules: Array.from({ length: own }, (_, rule) => [[{ ...EMPTY_MATCH, ...matchOf(first + rule) }]]),
    };
    return [`shop/policy-${index}`, made];
  });
}
