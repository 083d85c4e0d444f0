/** The paths of the admin port that every agent has (spec §14.3). */
import { CulvertError } from '../errors.ts';
import { extendFilter, formatFilter, parseFilter } from '../log/level-filter.ts';
import type { XdsStatus } from '../xds/client.ts';
import type { AdminRoute } from './admin-server.ts';
import type { ConfigDump } from './config-dump.ts';
import { prettyJson } from './pretty-json.ts';

/** The log filter of the whole process. */
export interface LogLevels {
  /** The filter the agent was started with. */
  readonly startup: string;
  current(): string;
  /** Gives the filter to the loggers of all threads; resolves when all of them log by it. */
  set(filter: string): Promise<void>;
}

export function configDumpRoute(dump: () => ConfigDump | Promise<ConfigDump>): AdminRoute {
  return {
    path: '/config_dump',
    methods: null,
    purpose: 'Everything the agent knows and works with, as JSON',
    handle: async () => ({ status: 200, contentType: 'application/json', body: prettyJson(await dump()) }),
  };
}

/** @param status null without a control plane */
export function xdsRoute(status: () => XdsStatus | null): AdminRoute {
  return {
    path: '/xds',
    methods: null,
    purpose: 'The stream to the control plane: its state, the last pushes, what was rejected',
    handle() {
      const found = status();
      if (found === null) return { status: 404, body: 'no control plane: XDS_ADDRESS is empty\n' };
      return { status: 200, contentType: 'application/json', body: prettyJson(found) };
    },
  };
}

const LOGGING_USAGE = [
  'usage: POST /logging                       show the log level',
  '       POST /logging?level=<spec>          add to it',
  '       POST /logging?reset                 go back to the level at start',
  '       POST /logging?reset&level=<spec>    go back, then add',
  '<spec>: comma list of <level> or <target>=<level>; level: off, error, warn, info, debug, trace',
  '',
].join('\n');

export function loggingRoute(levels: LogLevels): AdminRoute {
  return {
    path: '/logging',
    methods: ['POST'],
    purpose: 'Show or change the log level',
    usage: LOGGING_USAGE,
    async handle({ url }) {
      const spec = url.searchParams.get('level');
      const reset = url.searchParams.has('reset');
      try {
        const base = parseFilter(reset ? levels.startup : levels.current());
        if (spec !== null) await levels.set(formatFilter(extendFilter(base, spec)));
        else if (reset) await levels.set(formatFilter(base));
      } catch (error) {
        if (!(error instanceof CulvertError)) throw error;
        return { status: 400, body: `Invalid level provided: ${error.message}\n${LOGGING_USAGE}` };
      }
      return { status: 200, body: `current log level is ${levels.current()}\n` };
    },
  };
}

/** @param shutDown starts the graceful end of the agent; called once the reply was sent */
export function quitRoute(shutDown: () => void): AdminRoute {
  return {
    path: '/quitquitquit',
    methods: ['POST'],
    purpose: 'End the agent, letting connections finish',
    handle: () => ({ status: 200, body: 'shutdown now\n', sent: shutDown }),
  };
}
