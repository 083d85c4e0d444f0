import type { Filter } from '../filters/chain.ts';
import { CONTINUE } from '../filters/verdict.ts';
import { parseBaggage } from '../hbone/baggage.ts';
import { fieldValue, readForwardedNetwork } from '../hbone/connect-headers.ts';
import type { WorkloadLabels } from '../routing/plan.ts';
import { contextOf } from './context.ts';
import { planVerdict } from './filters.ts';
import { baggageOf, claimedHost, type TunnelStream } from './tunnel-stream.ts';

const NO_HEADERS: TunnelStream['headers'] = [];

/** Whether the authority is one this pod serves, and who talks to whom (spec §4.2, steps 2 to 6). */
export function authority(): Filter<TunnelStream> {
  return {
    name: 'authority',
    check(stream) {
      const { plane, pod, headers } = stream;
      if (stream.plan === null) {
        stream.claimedService = claimedHost(headers);
        stream.plan = plane.plans.inbound(
          pod,
          {
            kind: 'hbone',
            localIp: stream.destinationIp,
            peerIp: stream.peerIp,
            authority: stream.authority,
            forwardedHost: stream.claimedService,
            fromNetwork: readForwardedNetwork(headers),
          },
          (plan) => {
            stream.plan = plan;
            stream.proceed();
          },
        );
      }
      if (stream.plan?.kind === 'deliver') {
        const told = stream.plan.source === null ? sourceFromBaggage(stream) : null;
        stream.context = contextOf(stream.plan, stream, told);
        stream.headers = NO_HEADERS;
      }
      return planVerdict(stream.plan);
    },
  };
}

/** Tells the client who serves it (spec §4.2, step 9). */
export function metadata(): Filter<TunnelStream> {
  return {
    name: 'metadata',
    check(stream) {
      if (stream.plane.settings.responseBaggage && stream.plan?.kind === 'deliver') {
        stream.responseBaggage = baggageOf(stream.plan.destination);
      }
      return CONTINUE;
    },
  };
}

/** A source that the mesh state does not know is described by its own words, for telemetry only. */
function sourceFromBaggage(stream: TunnelStream): WorkloadLabels | null {
  if (!stream.plane.settings.responseBaggage) return null;
  const header = fieldValue(stream.headers, 'baggage');
  if (header === null || header === '') return null;
  return { uid: '', name: '', identity: stream.peerIdentity, ...parseBaggage(header) };
}
