import type { Setting } from '../setting.ts';
import { duration, integer } from '../values.ts';

export const balancingSettings = {
  attemptTimeout: {
    env: 'CULVERT_CONNECT_ATTEMPT_TIMEOUT',
    type: duration('1ms', '1h'),
    default: '2500ms',
    meaning:
      'Longest wait for the tunnel or connection to one endpoint, or for any sign of it in a tunnel that is open, while others are left to try. An endpoint that gives signs but no answer to the request is left when the connect timeout would leave no time for another one. The last one is waited for until the connect timeout; a tunnel to it that was open before and says nothing for that time, not even to a PING, is replaced by another one.',
    why: 'An endpoint whose node is gone does not answer at all. Long enough for the kernel to send a SYN again after 1 s.',
  },
  ejectionTime: {
    env: 'CULVERT_EJECTION_TIME',
    type: duration('1ms', '1h'),
    default: '5s',
    meaning:
      'How long an endpoint that could not be reached is left out; doubles with each further failure, and varies by a quarter either way.',
    why: 'Long enough that few connections try in vain, short enough that one lost packet costs little.',
  },
  ejectionMaxTime: {
    env: 'CULVERT_EJECTION_MAX_TIME',
    type: duration('1ms', '24h'),
    default: '5m',
    meaning: 'Longest time for which an endpoint is left out.',
    why: 'An endpoint that recovers gets traffic again without anybody’s help.',
  },
  ejectionMaxPercent: {
    env: 'CULVERT_EJECTION_MAX_PERCENT',
    type: integer(0, 100),
    default: '50',
    unit: 'percent',
    meaning:
      'Share of a service’s endpoints that may be left out at a time: at least one, never all. Where a service prefers near endpoints it is the share of the farthest: the nearer ones may all be left out, as farther ones take over. 0 leaves out none; then failed attempts are only tried elsewhere.',
    why: 'When most endpoints seem to fail the fault is more likely here, and the rest would be overrun.',
  },
} as const satisfies Record<string, Setting>;
