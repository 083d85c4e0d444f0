import type { Setting } from '../setting.ts';
import { boolean, logFilter, oneOf } from '../values.ts';

export const logsSettings = {
  logFilter: {
    env: 'RUST_LOG',
    type: logFilter,
    default: 'info',
    meaning: 'What is logged: a level, and levels of single targets (`info,access=error`).',
    why: 'ztunnel’s variable; the level can be changed while running.',
  },
  logFormat: {
    env: 'LOG_FORMAT',
    type: oneOf(['plain', 'json']),
    default: 'plain',
    meaning: 'Form of a log line.',
    why: 'Tools parse either.',
  },
  authzPolicyInfoLogging: {
    env: 'AUTHZ_POLICY_INFO_LOGGING',
    type: boolean,
    default: 'false',
    meaning: 'Log decisions of authorization policies at level info.',
    why: 'Shows what a policy does without debug logs of everything else.',
  },
} as const satisfies Record<string, Setting>;
