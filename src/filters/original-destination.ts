import type { Filter } from './chain.ts';
import type { ProxiedConnection } from './connection.ts';
import { CONTINUE, close } from './verdict.ts';

/** Where the client wanted to go: recorded by the kernel when it redirected the connection (spec §2.2). */
export function originalDestination(): Filter<ProxiedConnection> {
  return {
    name: 'original-destination',
    check: ({ destinationIp, destinationPort }) =>
      destinationIp !== '' && destinationPort > 0
        ? CONTINUE
        : close('no-destination', 'the original destination of the connection is not known'),
  };
}
