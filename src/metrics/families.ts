/**
 * The metrics of the agent. Names, labels and texts of `istio_…`, `workload_manager_…` and `process_…` are the
 * incumbent's (spec §12.2, §12.3), so that dashboards and alerts keep working; `culvert_…` are its own.
 */
import type { Family } from './family.ts';
import { LEADING_LABELS, SOURCE_LABELS, TRAILING_LABELS } from './traffic-labels.ts';

export const PROCESS = {
  openFds: gauge('process_open_fds', 'Number of open file descriptors'),
  maxFds: gauge('process_max_fds', 'Maximum number of file descriptors'),
  residentMemory: gauge('process_resident_memory_bytes', 'Resident memory of the process.', [], 'bytes'),
  cpu: counter('process_cpu_seconds', 'CPU time the process has used, user and system.', [], 'seconds'),
  startTime: gauge('process_start_time_seconds', 'When the process started, in seconds since 1970.', [], 'seconds'),
} as const;

export const BUILD = gauge('istio_build', 'Istio component build info.', ['component', 'tag']);

const trafficLabels = [...LEADING_LABELS, 'response_flags', ...TRAILING_LABELS];

export const TRAFFIC = {
  opened: counter('istio_tcp_connections_opened', 'The total number of TCP connections opened.', trafficLabels),
  closed: counter('istio_tcp_connections_closed', 'The total number of TCP connections closed.', trafficLabels),
  received: counter(
    'istio_tcp_received_bytes',
    'The size of total bytes received during request in case of a TCP connection.',
    trafficLabels,
  ),
  sent: counter(
    'istio_tcp_sent_bytes',
    'The size of total bytes sent during response in case of a TCP connection.',
    trafficLabels,
  ),
  failed: counter(
    'istio_tcp_connections_failed',
    'The total number of TCP connections that failed to establish (unstable).',
    trafficLabels,
  ),
} as const;

/** Accepted connections, those in their TLS handshake included. `reporter` as in traffic: source, destination */
export const SOCKETS_OPEN = gauge('istio_tcp_sockets_open', 'The current number of open TCP sockets (unstable).', [
  'reporter',
]);

/** `reporter` as in traffic: source, destination */
export const CRL_REJECTIONS = counter(
  'istio_crl_policy_rejections',
  'The total number of tunnels refused because the certificate of the peer is revoked (unstable).',
  ['reporter'],
);

export const WORKLOAD_MANAGER = {
  active: gauge(
    'workload_manager_active_proxy_count',
    'The total number current workloads with active proxies (unstable).',
  ),
  pending: gauge(
    'workload_manager_pending_proxy_count',
    'The total number current workloads with pending proxies (unstable).',
  ),
  started: counter('workload_manager_proxies_started', 'The total number of proxies that were started (unstable).'),
  stopped: counter('workload_manager_proxies_stopped', 'The total number of proxies that were stopped (unstable).'),
} as const;

/** The control plane's stream. `url` is the type of what it carried. */
export const XDS = {
  terminations: counter(
    'istio_xds_connection_terminations',
    'The total number of completed connections to xds server (unstable).',
    ['reason'],
  ),
  messages: counter('istio_xds_message', 'Total number of messages received (unstable).', ['url']),
  bytes: counter('istio_xds_message_bytes', 'Total number of bytes received (unstable).', ['url'], 'bytes'),
  connected: gauge('culvert_xds_connected', 'Whether there is a stream to the control plane (unstable).'),
  resources: gauge('culvert_xds_resources', 'Resources the control plane has sent and that are in force (unstable).', [
    'url',
  ]),
  rejected: gauge('culvert_xds_rejected_resources', 'Resources that were rejected when they came last (unstable).', [
    'url',
  ]),
  lastPush: gauge(
    'culvert_xds_last_push_timestamp_seconds',
    'When the last message of a type was received, in seconds since 1970 (unstable).',
    ['url'],
    'seconds',
  ),
} as const;

/** Connections and streams refused before their traffic was counted, which no istio_tcp_ metric shows. */
export const EARLY_DENIES = counter(
  'culvert_early_denies',
  'Connections refused before they were counted (unstable).',
  ['reporter', 'reason'],
);

/** Incremented per connection, whether or not the name had to be looked up (spec §12.3) */
export const ON_DEMAND_DNS = counter(
  'istio_on_demand_dns',
  'The total number of requests that used on-demand DNS (unstable).',
  [...SOURCE_LABELS, 'hostname'],
);

/** `result`: ejected, spared (too many of its service are left out already) */
export const ENDPOINT_FAILURES = counter(
  'culvert_endpoint_failures',
  'Endpoints that could not be reached, by whether they are left out for a while (unstable).',
  ['result'],
);

export const ENDPOINTS_EJECTED = gauge(
  'culvert_endpoints_ejected',
  'Endpoints that are left out now because they could not be reached, once for each pod and thread (unstable).',
);

/** `reason`: why the endpoint before was not reached */
export const ATTEMPTS_RETRIED = counter(
  'culvert_attempts_retried',
  'Connections that were tried again at another endpoint (unstable).',
  ['reason'],
);

/** `role`: client (this agent connected), server */
export const TUNNELS_OPEN = gauge('culvert_tunnels_open', 'HBONE tunnels that are open (unstable).', ['role']);

/** `result`: `ok` or the reason of the failure */
export const TUNNEL_HANDSHAKES = counter(
  'culvert_tunnel_handshakes',
  'TLS and HTTP/2 handshakes of tunnels by how they ended (unstable).',
  ['role', 'result'],
);

/** `role`: as which this agent was affected; `breach`: see `Breach` in src/hbone/http-error.ts */
export const HTTP2_BREACHES = counter(
  'culvert_http2_breaches',
  'What peers did in tunnels against HTTP/2 or beyond its bounds (unstable).',
  ['role', 'breach'],
);

/** `step`: tls-handshake, connect-response, silent-tunnel */
export const TUNNEL_TIMEOUTS = counter(
  'culvert_tunnel_timeouts',
  'Tunnels and requests that were given up because the peer took too long (unstable).',
  ['role', 'step'],
);

export const STREAMS_OPEN = gauge('culvert_streams_open', 'CONNECT streams that are open in tunnels (unstable).', [
  'role',
]);

/** `result`: hit (a tunnel with room was there), miss (one had to be opened), … */
export const POOL_REQUESTS = counter('culvert_pool_requests', 'Requests for a tunnel to the pool (unstable).', [
  'result',
]);

export const FILTER_VERDICTS = counter(
  'culvert_filter_verdicts',
  'Connections judged by each filter of a listener (unstable).',
  ['listener', 'filter', 'verdict'],
);

/** `reason`: unknown (listed for a workload, but not known), unintelligible */
export const POLICIES_NOT_ENFORCED = gauge(
  'culvert_policies_not_enforced',
  'Policies that deny connections because they are not known or not understood (unstable).',
  ['reason'],
);

/** `statistic`: mean, max */
export const LOOP_LAG = gauge(
  'culvert_event_loop_lag_seconds',
  'How late a thread got to what was due, since it was last asked (unstable).',
  ['thread', 'statistic'],
  'seconds',
);

export const ADMIN_REJECTS = counter(
  'culvert_admin_rejects',
  'Requests to the admin port that were refused because a web page could have sent them (unstable).',
  ['reason'],
);

export const LOG_LINES_LOST = counter(
  'culvert_log_lines_lost',
  'Log lines that could not be written because the output failed (unstable).',
  ['thread'],
);

export const SERIES_EVICTED = counter(
  'culvert_metric_series_evicted',
  'Traffic label sets dropped because nothing used them any more (unstable).',
);

function counter(name: string, help: string, labels: readonly string[] = [], unit?: string): Family {
  return { name, type: 'counter', help, labels, ...(unit === undefined ? {} : { unit }) };
}

function gauge(name: string, help: string, labels: readonly string[] = [], unit?: string): Family {
  return { ...counter(name, help, labels, unit), type: 'gauge' };
}
