import type { Supervisor } from '../worker/supervisor.ts';
import type { PodInfo } from '../zds/types.ts';
import type { PodState } from './config-dump.ts';

/** The pods for the config dump: those that run, with what each worker does for them, and those that are pending. */
export async function podStates(
  supervisor: Pick<Supervisor, 'pods' | 'snapshots'>,
  pending: readonly PodInfo[],
): Promise<PodState[]> {
  const snapshots = await supervisor.snapshots();
  const states: PodState[] = supervisor.pods().map((pod) => {
    const views = [...snapshots].flatMap(([worker, pods]) =>
      pods.filter(({ uid }) => uid === pod.uid).map((view) => ({ worker, view })),
    );
    const connections = views.flatMap(({ worker, view }) =>
      view.connections.map(({ number, ...connection }) => ({ ...connection, id: `${worker}-${number}` })),
    );
    return {
      uid: pod.uid,
      info: pod,
      serving: {
        kind: 'up',
        inbound: connections.flatMap(({ id, direction, src, originalDst, actualDst, protocol }) =>
          direction === 'inbound' && protocol !== 'DOUBLEHBONE' ? [{ id, src, originalDst, actualDst, protocol }] : [],
        ),
        outbound: connections.flatMap(({ id, direction, src, originalDst, actualDst, protocol }) =>
          direction === 'outbound' ? [{ id, src, originalDst: originalDst ?? '', actualDst, protocol }] : [],
        ),
        listeners: views.flatMap(({ worker, view }) =>
          view.listeners.map(({ address, port, filters }) => ({ address, port, worker, filters })),
        ),
        unhealthyEndpoints: views.flatMap(({ worker, view }) =>
          view.unhealthyEndpoints.map((endpoint) => ({ ...endpoint, worker })),
        ),
      },
    };
  });
  return [...states, ...pending.map((pod): PodState => ({ uid: pod.uid, info: pod, serving: { kind: 'pending' } }))];
}
