import type { Source } from './sources.ts';

/** What has to be worked out anew, because something that it depends on has changed. */
export interface Agenda {
  sources: Set<Source>;
  /** `namespace/hostname` */
  services: Set<string>;
  /** Names of policies. */
  readonly policies: Set<string>;
  /** All sources and services, beside those that are named. */
  everything: boolean;
  /** Whether what policies are attached to by reference is there. */
  targets: boolean;
  networkGateways: boolean;
  /** Addresses for hosts of ServiceEntries. */
  allocation: boolean;
}

export function createAgenda(): Agenda {
  return {
    sources: new Set(),
    services: new Set(),
    policies: new Set(),
    everything: false,
    targets: false,
    networkGateways: false,
    allocation: false,
  };
}
