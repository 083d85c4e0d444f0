import { readdirSync, readFileSync } from 'node:fs';
import { CulvertError, messageOf } from '../../errors.ts';

/**
 * The user that the kubelet runs as (spec node-05 §5.2), found by its process: `kubelet`, `kubelite` (MicroK8s) or `k3s`.
 * Null when there is none.
 * @param proc where the node's /proc is mounted
 * @throws CulvertError HOST_PROC_UNREADABLE
 */
export function findKubeletUser(proc: string): number | null {
  for (const pid of processesIn(proc)) {
    if (!/^\d+$/.test(pid)) continue;
    try {
      const name = readFileSync(`${proc}/${pid}/comm`, 'utf8').trim();
      if (!isKubelet(name, () => readFileSync(`${proc}/${pid}/cmdline`, 'utf8'))) continue;
      const uid = /^Uid:\s+(\d+)/m.exec(readFileSync(`${proc}/${pid}/status`, 'utf8'))?.[1];
      if (uid !== undefined) return Number(uid);
    } catch {
      // The process has ended meanwhile.
    }
  }
  return null;
}

function processesIn(proc: string): string[] {
  try {
    return readdirSync(proc);
  } catch (cause) {
    throw new CulvertError(
      'HOST_PROC_UNREADABLE',
      `the processes of the node cannot be read: ${messageOf(cause)}; mount its /proc there, or set CULVERT_HOST_PROC`,
      { cause },
    );
  }
}

function isKubelet(name: string, commandLine: () => string): boolean {
  if (name === 'kubelet' || name === 'k3s' || name === 'k3s-server' || name === 'k3s-agent') return true;
  return name === 'kubelite' && commandLine().includes('kubelet');
}
