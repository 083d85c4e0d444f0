import { closeFd, listenTcp } from '../../native/netns.ts';
import { ILLEGAL_PORTS } from '../../src/config/ports.ts';
import type { NetnsHandle } from '../../src/netns/handle.ts';
import type { PodInfo, PodManager, RunningPod } from '../../src/zds/types.ts';
import { agentListener } from './tcp.ts';

/** The least that serving a pod can mean: its three ports are bound in its namespace, and that is all. */
export function listeningPods(): PodManager & { close(): void } {
  const running = new Map<string, RunningPod & { handle: NetnsHandle; listeners: number[] }>();
  const stop = (uid: string) => {
    const { handle, listeners } = running.get(uid)!;
    running.delete(uid);
    for (const fd of listeners) closeFd(fd);
    handle.close();
  };
  return {
    async start(pod: PodInfo, handle: NetnsHandle) {
      const listeners: number[] = [];
      try {
        for (const port of ILLEGAL_PORTS) listeners.push(listenTcp(handle.fd, '::', port, agentListener).fd);
      } catch (error) {
        for (const fd of listeners) closeFd(fd);
        throw error;
      }
      running.set(pod.uid, { pod, netns: handle.key, handle, listeners });
    },
    stop,
    running: () => running,
    close() {
      for (const uid of [...running.keys()]) stop(uid);
    },
  };
}
