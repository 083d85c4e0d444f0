import { explainLive, type LiveConnection } from '../explain/connection.ts';
import { explain } from '../explain/explain.ts';
import type { ExplainedConnection, Explanation } from '../explain/types.ts';
import { QuestionError, type World } from '../explain/world.ts';
import type { ResolvedNames } from '../routing/names.ts';
import { inSlices } from '../slices.ts';
import type { Hostnames } from '../worker/hostnames.ts';
import type { AdminRoute } from './admin-server.ts';
import type { Reply } from './http-service.ts';
import { prettyJson } from './pretty-json.ts';

/** What questions are answered from. */
export interface ExplainSources {
  readonly world: () => Promise<Omit<World, 'names'>>;
  readonly names: Pick<Hostnames, 'addresses' | 'resolve'>;
  /** A live connection by the number of its thread and its number there. */
  readonly connection: (thread: number, number: number) => Promise<LiveConnection | null>;
}

const USAGE = [
  'usage: GET /explain?from=<source>&to=<destination>[&port=<port>]',
  '       GET /explain?connection=<id>',
  '<source>: namespace/pod, an address, a uid or an identity (spiffe://…)',
  '<destination>: a service (host name, name.namespace), namespace/pod or an address, with :port or the parameter port',
  '<id>: of a live connection, from /config_dump, such as 1-42',
  '',
].join('\n');

/** Where a connection would go and what policies say of it, or the same of a live one. */
export function explainRoute(sources: ExplainSources): AdminRoute {
  return {
    path: '/explain',
    methods: ['GET', 'HEAD'],
    purpose: 'Why a connection goes where it goes, and is allowed or denied: ?from=namespace/pod&amp;to=service:port',
    usage: USAGE,
    async handle({ url }): Promise<Reply> {
      try {
        const answer = await answerTo(url.searchParams, sources);
        return { status: 200, contentType: 'application/json', body: prettyJson(answer) };
      } catch (error) {
        if (!(error instanceof QuestionError)) throw error;
        return { status: 400, body: `${error.message}\n${USAGE}` };
      }
    },
  };
}

async function answerTo(
  given: URLSearchParams,
  { world, names, connection }: ExplainSources,
): Promise<Explanation | ExplainedConnection> {
  for (const name of given.keys()) {
    if (!PARAMETERS.includes(name)) throw new QuestionError(`${JSON.stringify(name)} is no parameter of /explain`);
    if (given.getAll(name).length > 1)
      throw new QuestionError(`${name}= is given more than once: one question at a time`);
  }
  const id = given.get('connection');
  if (id === null) {
    const question = { from: given.get('from') ?? '', to: given.get('to') ?? '', port: given.get('port') };
    return withNames(names, async (names) => inSlices(explain({ ...(await world()), names }, question)));
  }
  if (given.size > 1) throw new QuestionError('connection= stands alone: leave out the other parameters');
  const [, thread, number] = /^(\d{1,3})-(\d{1,15})$/.exec(id) ?? [];
  const found = thread === undefined ? null : await connection(Number(thread), Number(number));
  return withNames(names, async (names) => inSlices(explainLive({ ...(await world()), names }, id, found)));
}

/** Names that are not known yet are looked up, and the answer is made once more. */
async function withNames<T>(known: ExplainSources['names'], answer: (names: ResolvedNames) => Promise<T>): Promise<T> {
  const unknown = new Set<string>();
  const first = await answer({
    addresses(hostname) {
      const found = known.addresses(hostname);
      if (found === null) unknown.add(hostname);
      return found;
    },
  });
  if (unknown.size === 0) return first;
  await Promise.all([...unknown].slice(0, MAX_LOOKUPS).map((hostname) => known.resolve(hostname)));
  return answer(known);
}

/** For one question. */
const MAX_LOOKUPS = 100;

const PARAMETERS = ['from', 'to', 'port', 'connection'];
