/** Explanations as text for a terminal. */
import type { ExplainedPolicy, FailedMatch } from '../policy/explain.ts';
import type {
  BehindWaypoint,
  ExplainedConnection,
  ExplainedEndpoint,
  ExplainedRoute,
  Explanation,
  Judgement,
} from './types.ts';

export function printExplanation({ summary, from, to, route, notes }: Explanation): string {
  return [
    summary,
    ...notes.map((note) => `note: ${note}`),
    '',
    `from      ${from.namespace}/${from.name}  ${from.addresses.join(', ')}  ${from.identity}`,
    `to        ${to.address}${to.asked === to.address ? '' : `  (${to.asked})`}`,
    ...routeLines(route),
    '',
  ].join('\n');
}

export function printConnection(explained: ExplainedConnection): string {
  const { connection, ageMs, bytesFromClient, bytesFromServer, policy, now, expectedIdentities } = explained;
  const { id, direction, pod, src, originalDst, actualDst, protocol } = connection;
  return [
    `connection ${id}: ${direction}, ${protocol}, ${(ageMs / 1000).toFixed(1)} s old, ${bytesFromClient} bytes from the client, ${bytesFromServer} from the server`,
    `pod       ${pod}`,
    `from      ${src}`,
    `to        ${actualDst}${originalDst === null || originalDst === actualDst ? '' : `  (asked for ${originalDst})`}`,
    ...(expectedIdentities.length === 0 ? [] : [`peer      ${expectedIdentities.join(' or ')}`]),
    ...(policy === null ? [] : ['', 'What its policies say now:', ...judgementLines(policy)]),
    '',
    now === null ? 'Its source is no workload of the mesh.\n' : `What a new one would meet:\n${printExplanation(now)}`,
  ].join('\n');
}

function routeLines(route: ExplainedRoute): string[] {
  if (route.kind === 'refused') return [`route     refused: ${route.reason.message} (${route.reason.tag})`];
  const { service, waypoints, behindWaypoint, endpoints, endpointCount } = route;
  const beyond = endpointCount - endpoints.length;
  return [
    `route     ${route.kind}${service === null ? '' : `, service ${service.namespace}/${service.hostname}`}${waypoints.length === 0 ? '' : `, waypoint ${waypoints.join(' or ')}`}`,
    ...endpoints.flatMap(endpointLines),
    ...(behindWaypoint === null ? [] : behindLines(behindWaypoint)),
    ...(beyond > 0 ? [`… and ${beyond} more endpoints`] : []),
  ];
}

function endpointLines(endpoint: ExplainedEndpoint): string[] {
  const { namespace, name, address, hostname, share, health, protocol, authority, expectedIdentities } = endpoint;
  const { failing, innerIdentities } = endpoint;
  const who = name === '' ? 'outside the mesh' : `${namespace}/${name}`;
  return [
    '',
    `endpoint  ${who}  ${address}${hostname === '' ? '' : ` (${hostname})`}  ${share === 0 ? 'when no nearer one can be reached' : `${percent(share)} of new connections`}, ${health}, ${protocol}${authority === null ? '' : ` for ${authority}`}`,
    ...failing.map(
      ({ worker, failures, ejectedForMs }) =>
        `  failing worker ${worker}: ${failures} failures in a row${ejectedForMs === 0 ? '' : `, left out for ${(ejectedForMs / 1000).toFixed(1)} s`}`,
    ),
    ...(expectedIdentities.length === 0 ? [] : [`  peer    ${expectedIdentities.join(' or ')}`]),
    ...(innerIdentities === null ? [] : [`  inner   ${innerIdentities.join(' or ')}`]),
    ...judgementLines(endpoint.policy),
  ];
}

function behindLines({ namespace, name, identity, endpoints }: BehindWaypoint): string[] {
  return [
    '',
    `behind    waypoint ${namespace}/${name}: whether it lets the connection through is for its own rules to say, which are not known here; it goes on as ${identity}`,
    ...(endpoints.length === 0 ? ['  to      nothing that it could reach'] : []),
    ...endpoints.flatMap(({ policy, ...to }) => [
      `  to      ${to.name === '' ? 'outside the mesh' : `${to.namespace}/${to.name}`}  ${to.address}`,
      ...judgementLines(policy),
    ]),
  ];
}

function judgementLines(judgement: Judgement): string[] {
  if (judgement.kind === 'not-judged') return [`  policy  not judged: ${judgement.reason}`];
  if (judgement.kind === 'refused') return [`  policy  refused before any policy: ${judgement.reason}`];
  const { verdict, reason, as, policies, decidedBy } = judgement;
  const rule = decidedBy === null || decidedBy.rule === null ? '' : `, rule ${decidedBy.rule}`;
  return [
    `  policy  ${verdict.toUpperCase()}: ${reason}${rule}`,
    `          judged as ${as.identity ?? 'nobody (plain text)'} from ${as.source} to ${as.destination}`,
    ...policies.flatMap(policyLines),
  ];
}

function policyLines(policy: ExplainedPolicy): string[] {
  const { policy: key, action, scope, dryRun, outcome, rule, fault, failed, furtherFailed } = policy;
  const kind = action === null ? '' : `  ${action.toUpperCase()}${dryRun ? ' (dry run)' : ''}, ${scope}`;
  const result = outcome === 'matched' ? `matches by rule ${rule}` : (fault ?? 'does not match');
  return [
    `          - ${key}${kind}: ${result}${outcome === 'not-matched' && failed.length === 0 ? ': it has no rules' : ''}`,
    ...failed.flatMap(({ rule, clause, matches }) =>
      matches.map((match) => `              rule ${rule}, clause ${clause}, match ${match.match}: ${matchText(match)}`),
    ),
    ...(furtherFailed > 0 ? [`              … and ${furtherFailed} more rules`] : []),
  ];
}

function matchText({ field, values, furtherValues, has }: FailedMatch): string {
  if (field === null) return 'names no field, and so never matches';
  const further = furtherValues === 0 ? '' : ` and ${furtherValues} more`;
  return `${field} ${values.map(valueText).join(', ')}${further}; the connection has ${has === null || has === '' ? 'none' : has}`;
}

function valueText(value: unknown): string {
  if (typeof value !== 'object' || value === null) return String(value);
  if ('Exact' in value) return String(value.Exact);
  if ('Prefix' in value) return `${value.Prefix}*`;
  if ('Suffix' in value) return `*${value.Suffix}`;
  if ('Presence' in value) return '(any)';
  if ('serviceAccount' in value && 'namespace' in value) return `${value.namespace}/${value.serviceAccount}`;
  return JSON.stringify(value);
}

function percent(share: number): string {
  return `${(share * 100).toFixed(share < 0.1 && share > 0 ? 1 : 0)} %`;
}
