import { readdirSync, readFileSync } from 'node:fs';
import { BUILD, PROCESS } from './families.ts';
import type { Family } from './family.ts';
import type { Registry } from './registry.ts';

/**
 * Registers what every agent shows about its process and build, read when scraped.
 * @param tag the istio version it runs with (`ISTIO_META_ISTIO_VERSION`); '' when not known
 * @param component what the process is called there; the default is what dashboards and `istioctl` find node proxies by
 */
export function registerProcessMetrics(registry: Registry, tag: string, component = 'ztunnel'): void {
  const startedAt = Date.now() / 1000 - process.uptime();
  const single = (family: Family, read: () => number | null) =>
    registry.computed(family, () => {
      const value = read();
      return value === null ? [] : [{ labels: [], value }];
    });
  single(PROCESS.openFds, openDescriptors);
  single(PROCESS.maxFds, maxDescriptors);
  single(PROCESS.residentMemory, () => process.memoryUsage.rss());
  single(PROCESS.cpu, () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1e6;
  });
  single(PROCESS.startTime, () => startedAt);
  registry.gauge(BUILD).set(1, component, tag);
}

/** Null where /proc is not readable. */
function openDescriptors(): number | null {
  try {
    // Reading the folder needs a descriptor of its own, which is in the list.
    return readdirSync('/proc/self/fd').length - 1;
  } catch {
    return null;
  }
}

function maxDescriptors(): number | null {
  try {
    const limit = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'));
    return limit === null ? null : Number(limit[1]);
  } catch {
    return null;
  }
}
