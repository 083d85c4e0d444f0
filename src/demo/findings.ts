import { INBOUND_HBONE_PORT as HBONE_PORT, ILLEGAL_PORTS } from '../config/ports.ts';
import type { AccessLine } from './access-log.ts';
import type { Conversation, Conversations } from './conversations.ts';
import type { CapturedStream } from './link-capture.ts';
import { actors, identityOf, NAMESPACE, POLICY, SERVICE } from './scene.ts';
import type { Screen } from './screen.ts';
import type { Stage } from './stage.ts';
import { viewAsTls } from './tls-stream.ts';

/** What became of the requests, as the clients saw it. */
export function showAnswers(
  screen: Screen,
  { toService, overIpv6, denied, toOutsider, fromOutsider }: Conversations,
): void {
  const rows = (conversations: readonly Conversation[]) => {
    const byOutcome = Object.groupBy(conversations, ({ answeredBy, failure }) => answeredBy ?? failure);
    return Object.entries(byOutcome).map(([outcome, same]) => [
      same![0]!.from,
      same![0]!.url,
      `${same!.length}`,
      same![0]!.answeredBy === null ? outcome : `answered by ${outcome}`,
    ]);
  };
  screen.table(
    ['CLIENT', 'REQUEST', 'TIMES', 'WHAT CURL GOT'],
    [toService, overIpv6 ?? [], denied, toOutsider, fromOutsider].flatMap((part) => rows([part].flat())),
  );
  const endpoints = new Set(toService.map(({ answeredBy }) => answeredBy));
  screen.check(
    endpoints.size === 2 && endpoints.has('api-1') && endpoints.has('api-2'),
    `every request of frontend to ${SERVICE.hostname} was answered, by both endpoints in turn`,
  );
  if (overIpv6 !== null) screen.check(overIpv6.answeredBy === 'api-1', 'api-1 was reached by its IPv6 address as well');
  screen.check(denied.answeredBy === null, 'guest got no answer: a policy is against it');
  screen.check(
    toOutsider.answeredBy === 'outsider' && fromOutsider.answeredBy === 'api-1',
    'a pod outside of the mesh can be talked to as before, in both directions',
  );
}

/** The agent's access log as a table: who talked to whom under which identity. */
export function showWhoTalked(screen: Screen, access: readonly AccessLine[], { toService }: Conversations): void {
  const enrolled = new Set(actors.filter((actor) => actor.enrolled).map(({ name }) => name));
  // Both ends report; the receiving end has verified both identities, so it is asked where it is enrolled.
  const seen = access.filter(
    ({ message, field }) =>
      message === 'connection complete' && (field('direction') === 'inbound' || !enrolled.has(field('dst.workload'))),
  );
  const rows = Object.values(
    Object.groupBy(seen, ({ field }) =>
      [field('src.workload'), field('dst.workload'), field('dst.hbone_addr') === '', field('error')].join(' '),
    ),
  ).map((lines) => describe(lines!));
  screen.say(`Identities are SPIFFE ids under ${TRUST_DOMAIN}; "–" is nobody proven.`);
  screen.table(['FROM', 'IDENTITY', 'TO', 'IDENTITY', 'HOW', 'TIMES', 'OUTCOME'], rows);

  const tunnelled = seen.filter(({ field }) => field('src.workload') === 'frontend' && field('dst.hbone_addr') !== '');
  screen.check(
    tunnelled.length >= toService.length &&
      tunnelled.every(
        ({ field }) =>
          field('src.identity') === identityOf('frontend') &&
          field('dst.identity') === identityOf('api') &&
          field('error') === '',
      ),
    'frontend and api knew each other by certificate, on every connection',
  );
  const denials = seen.filter(({ field }) => field('src.workload') === 'guest');
  screen.check(
    denials.length === 1 && denials[0]!.field('error').endsWith(`explicitly denied by: ${NAMESPACE}/${POLICY}`),
    `the agent names the policy that stopped guest: ${NAMESPACE}/${POLICY}`,
  );
  screen.check(
    seen
      .filter(({ field }) => [field('src.workload'), field('dst.workload')].includes('outsider'))
      .every(({ field }) => field('src.identity') === '' && field('dst.identity') === ''),
    'nobody is credited with an identity that was not proven',
  );
}

/** What was on the links between the pods. */
export function showLinks(screen: Screen, stage: Stage, { toService, overIpv6, toOutsider }: Conversations): void {
  const links = [...stage.links].map(([name, link]) => ({ name, streams: link.streams() }));
  const secrets = [...toService, ...(overIpv6 === null ? [] : [overIpv6])].map(({ secret }) => secret);
  screen.table(
    ['LINK OF', 'HBONE, PORT 15008', 'READABLE: FRONTEND AND API', 'READABLE: FRONTEND AND OUTSIDER'],
    links.map(({ name, streams }) => [
      name,
      describeTunnels(streams.filter(isTunnel)),
      `${secrets.filter((secret) => isReadable(streams, secret)).length} of ${secrets.length} secrets`,
      isReadable(streams, toOutsider.secret) ? '1 of 1' : '0 of 1',
    ]),
  );
  const enrolled = new Set(
    actors
      .filter((actor) => actor.enrolled)
      .flatMap(({ name }) => {
        const { ipv4, ipv6 } = stage.pods.get(name)!;
        return [ipv4, ipv6];
      }),
  );
  const between = links
    .flatMap(({ streams }) => streams)
    .filter(({ sender, receiver, bytes }) => enrolled.has(sender.ip) && enrolled.has(receiver.ip) && bytes.length > 0);
  screen.check(
    between.length > 0 &&
      between.every((stream) => {
        const view = viewAsTls(stream.bytes);
        return isTunnel(stream) && view.kind === 'tls' && view.encryptedRecords > 0;
      }),
    'between enrolled pods there was nothing but TLS (records 17 03 03) to and from port 15008',
  );
  screen.check(
    secrets.every((secret) => links.every(({ streams }) => !isReadable(streams, secret))),
    'what frontend and api told each other could be read on no link',
  );
  const outsider = links.find(({ name }) => name === 'outsider')!;
  screen.check(
    isReadable(outsider.streams, toOutsider.secret),
    'for comparison: what frontend told outsider, who is not enrolled, could be read on its link',
  );
}

/** Which sockets the agent has in which pod, from its admin endpoint. */
export async function showListeners(screen: Screen, { ports }: Stage): Promise<void> {
  const dump = (await (await fetch(`http://localhost:${ports.admin}/config_dump`)).json()) as ConfigDump;
  const states = Object.values(dump.workloadState).sort((a, b) => (a.info.name < b.info.name ? -1 : 1));
  const rows = states.flatMap(({ info, state, listeners = [] }) => {
    const byPort = Object.entries(Object.groupBy(listeners, ({ port }) => String(port)));
    return byPort.map(([port, same], index) => [
      index === 0 ? info.name : '',
      index === 0 ? state : '',
      port,
      `${same!.length}`,
      same![0]!.filters.join(' → '),
    ]);
  });
  screen.table(['POD', 'STATE', 'PORT', 'THREADS', 'A CONNECTION PASSES'], rows);
  const enrolled = actors.filter((actor) => actor.enrolled).map(({ name }) => name);
  screen.check(
    states.map(({ info }) => info.name).join() === enrolled.toSorted().join() &&
      states.every(
        ({ state, listeners = [] }) =>
          state === 'Up' && ILLEGAL_PORTS.every((port) => listeners.some((listener) => listener.port === port)),
      ),
    'the agent listens in every enrolled pod, on ports 15001, 15006 and 15008, and in no other',
  );
}

/** The counters that a dashboard would show. */
export async function showMetrics(screen: Screen, { ports }: Stage, { toService }: Conversations): Promise<void> {
  const ask = async (port: number, path: string) => (await fetch(`http://localhost:${port}/${path}`)).text();
  // A scrape leaves out what a thread reports after a second. The report has come when the thread has answered to more.
  await ask(ports.metrics, 'metrics');
  await ask(ports.admin, 'config_dump');
  const text = await ask(ports.metrics, 'metrics');
  const sum = (family: string, ...labels: string[]) =>
    text
      .split('\n')
      .filter((line) => line.startsWith(`${family}{`) && labels.every((label) => line.includes(label)))
      .reduce((total, line) => total + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
  const rows: [family: string, labels: string[]][] = [
    ['istio_tcp_connections_opened_total', ['reporter="source"', 'connection_security_policy="mutual_tls"']],
    ['istio_tcp_connections_opened_total', ['reporter="destination"', 'connection_security_policy="mutual_tls"']],
    ['istio_tcp_connections_opened_total', ['reporter="source"', 'connection_security_policy="unknown"']],
    ['istio_tcp_connections_failed_total', ['reporter="destination"', 'response_flags="DENY"']],
    ['istio_tcp_received_bytes_total', ['reporter="source"']],
    ['istio_tcp_sent_bytes_total', ['reporter="source"']],
  ];
  screen.table(
    ['METRIC', 'WHERE', 'SUM'],
    rows.map(([family, labels]) => [family, labels.join(', '), `${sum(family, ...labels)}`]),
  );
  screen.check(
    sum('istio_tcp_connections_opened_total', 'reporter="destination"', 'mutual_tls', 'source_workload="frontend"') >=
      toService.length &&
      sum('istio_tcp_connections_failed_total', 'response_flags="DENY"', 'source_workload="guest"') > 0,
    'the metrics count the connections of frontend and the denial of guest',
  );
}

const TRUST_DOMAIN = 'spiffe://cluster.local/';

interface ConfigDump {
  readonly workloadState: Record<
    string,
    {
      readonly info: { readonly name: string };
      readonly state: string;
      readonly listeners?: readonly { readonly port: number; readonly filters: readonly string[] }[];
    }
  >;
}

function describe(lines: readonly AccessLine[]): string[] {
  const { field } = lines[0]!;
  const service = field('dst.service');
  return [
    field('src.workload'),
    shortIdentity(field('src.identity')),
    field('dst.workload') + (service === '' ? '' : ` (service ${service.split('.')[0]})`),
    shortIdentity(field('dst.identity')),
    field('dst.hbone_addr') === '' ? 'plain TCP' : 'mTLS tunnel',
    `${lines.length}`,
    field('error') === '' ? 'ok' : field('error').replace('connection closed due to policy rejection: ', ''),
  ];
}

function shortIdentity(identity: string): string {
  return identity === '' ? '–' : identity.replace(TRUST_DOMAIN, '');
}

function isTunnel({ sender, receiver, bytes }: CapturedStream): boolean {
  return (sender.port === HBONE_PORT || receiver.port === HBONE_PORT) && bytes.length > 0;
}

function isReadable(streams: readonly CapturedStream[], secret: string): boolean {
  return streams.some(({ bytes }) => bytes.includes(secret));
}

/** `tunnels` holds both directions of each connection. */
function describeTunnels(tunnels: readonly CapturedStream[]): string {
  if (tunnels.length === 0) return 'nothing';
  const bytes = tunnels.reduce((sum, stream) => sum + stream.bytes.length, 0);
  const views = tunnels.map((stream) => viewAsTls(stream.bytes));
  const records = views.reduce((sum, view) => sum + (view.kind === 'tls' ? view.encryptedRecords : 0), 0);
  const contents = views.every(({ kind }) => kind === 'tls') ? `all TLS, ${records} encrypted records` : 'not all TLS';
  return `${tunnels.length / 2} connection${tunnels.length > 2 ? 's' : ''}, ${bytes} bytes, ${contents}`;
}
