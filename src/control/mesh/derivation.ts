/** Works out what is on the agenda, round by round: resources into the table, conditions into the book of statuses. */
import type { Kind } from '../kinds.ts';
import { AUTHORIZATION_POLICIES } from '../objects/authorization-policy.ts';
import { keyOf } from '../objects/metadata.ts';
import type { Condition } from '../objects/reported-conditions.ts';
import { SERVICES } from '../objects/service.ts';
import { SERVICE_ENTRIES, type ServiceEntry } from '../objects/service-entry.ts';
import { WORKLOAD_ENTRIES } from '../objects/workload-entry.ts';
import type { Agenda } from './agenda.ts';
import { createAllocator } from './allocation.ts';
import { encodeAuthorization } from './authorization-messages.ts';
import { deriveService } from './derive-services.ts';
import { createWorkloadDerivation } from './derive-workloads.ts';
import { encodeService, encodeWorkload } from './encode-address.ts';
import type { MeshObjects } from './mesh-objects.ts';
import type { WorkloadMessage } from './messages.ts';
import type { ResourceTable } from './resource-table.ts';
import type { MeshSettings } from './settings.ts';
import type { Source } from './sources.ts';
import type { FieldManager, StatusBook } from './statuses.ts';
import { conditionOfTargets } from './targeted-policies.ts';
import type { Surroundings } from './waypoints.ts';

export interface Derivation {
  /**
   * Works out what is on the agenda when it begins; what is put there meanwhile is for the next round, so that nobody who
   * alters something again and again keeps others from being told of their changes.
   */
  round(): Generator<void, void>;
  /** Whether another round would find nothing to do. */
  isDone(): boolean;
}

/** Something could not be worked out, which is a defect of culvert's; its resource stays as it is. */
export type OnFailure = (name: string, error: unknown) => void;

export function createDerivation(
  objects: MeshObjects,
  settings: MeshSettings,
  table: ResourceTable,
  statuses: StatusBook,
  onFailure: OnFailure,
): Derivation {
  const { agenda, gateways } = objects;
  const derivation = createWorkloadDerivation(objects, settings);
  const allocator = createAllocator(settings);
  let gatewayNames: readonly string[] = [];
  let round = 0;
  /** Policies that are gone, but may still be listed by workloads, with the round in which that was seen. */
  const leaving = new Map<string, number>();
  /** Policies that will hold only for those that list them, and hold without that until all do. */
  const narrowing = new Map<string, { readonly body: Uint8Array; readonly since: number }>();

  /** New policies come before the workloads that list them: an agent ignores one that it does not know. */
  function* setPolicies(): Generator<void, void> {
    for (const name of agenda.policies) {
      agenda.policies.delete(name);
      contained(name, () => setPolicy(name));
      yield;
    }
  }

  function setPolicy(name: string): void {
    const message = objects.policies.message(name);
    leaving.delete(name);
    narrowing.delete(name);
    if (message === null) leaving.set(name, round);
    else {
      const isListed = message.scope === 'workload';
      const body = encodeAuthorization(message);
      if (isListed && table.holdsUnlisted(name)) narrowing.set(name, { body, since: round });
      else table.setPolicy(name, body, isListed);
    }
    reportPolicy(name);
  }

  /**
   * Once workloads list those they have to, and no others any more: those that were altered before this round began. The
   * workloads of the others may be for the next one.
   */
  function endPolicies(): void {
    for (const [name, { body, since }] of narrowing) {
      if (since === round) continue;
      table.setPolicy(name, body, true);
      narrowing.delete(name);
    }
    for (const [name, since] of leaving) {
      if (since === round) continue;
      table.removePolicy(name);
      leaving.delete(name);
    }
  }

  function reportPolicy(key: string): void {
    const found = objects.policies.authorization(key);
    if (found === null) return;
    const { policy, converted } = found;
    if (policy.targets.length === 0) report(AUTHORIZATION_POLICIES, 'istio-ambient-waypoint-policy', policy, []);
    const conditions = converted.condition === null ? [] : [converted.condition];
    report(AUTHORIZATION_POLICIES, 'istio-ambient-ztunnel-policy', policy, conditions);
  }

  function reportTargets(): void {
    if (!agenda.targets) return;
    agenda.targets = false;
    for (const policy of objects.policies.targeted()) {
      const condition = conditionOfTargets(policy, objects, settings);
      report(AUTHORIZATION_POLICIES, 'istio-ambient-waypoint-policy', policy, [condition]);
    }
  }

  function report(kind: Kind, fieldManager: FieldManager, object: Reported, conditions: readonly Condition[]): void {
    const update = { kind, key: keyOf(object), fieldManager, observedGeneration: object.generation, conditions };
    statuses.setConditions(update, object.reported);
  }

  function setService(key: string): void {
    const service = objects.services.get(key);
    const { around, asked } = surroundings();
    if (service === null) table.removeAddress(key);
    else {
      const { message, conditions } = deriveService(service, objects, settings, around);
      const addresses = message.addresses.map(({ network, ip, length }) =>
        length === null ? `${network}/${ip}` : `${network}/${ip}/${length}`,
      );
      table.setAddress(key, encodeService(message), { addresses, services: null, node: '' });
      if (service.kind === 'Service') report(SERVICES, 'istio-ambient-service', service.object, conditions);
    }
    gateways.serviceAsksFor(key, asked());
  }

  function* setSource(source: Source): Generator<void, void> {
    const { around, asked } = surroundings();
    const { names, workloads, conditions } = derivation.derive(source, around);
    // Before anything else happens: what changes from now on is to be heard of.
    gateways.sourceAsksFor(source, asked());
    if (source.kind === 'WorkloadEntry' && source.object !== null)
      report(WORKLOAD_ENTRIES, 'istio-ambient-workloadentry', source.object, conditions);
    if (source.kind === 'ServiceEntry' && source.object !== null)
      report(SERVICE_ENTRIES, 'istio-ambient-service', source.object, conditions);
    const before = source.names;
    source.names = names;
    yield* setWorkloads(names, workloads, before);
  }

  /**
   * Puts the workloads of those names in the place of those that were there before, which go last: agents are told of what
   * there is between any two steps, and a service is not to be without endpoints meanwhile.
   */
  function* setWorkloads(
    names: readonly string[],
    workloads: Iterable<WorkloadMessage>,
    before: readonly string[],
  ): Generator<void, void> {
    for (const workload of workloads) {
      const { uid, network, addresses, services, node } = workload;
      table.setAddress(uid, encodeWorkload(workload), {
        addresses: addresses.map((ip) => `${network}/${ip}`),
        services: services.size === 0 ? NONE : [...services.keys()],
        node,
      });
      yield;
    }
    const now = before.length === 0 ? null : new Set(names);
    for (const name of before) {
      if (now?.has(name)) continue;
      table.removeAddress(name);
      yield;
    }
  }

  function* setGateways(): Generator<void, void> {
    agenda.networkGateways = false;
    if (derivation.setGateways(gateways.networkGateways())) agenda.everything = true;
    const messages = new Map(derivation.gateways().map((message) => [message.uid, message]));
    const before = gatewayNames;
    gatewayNames = [...messages.keys()];
    yield* setWorkloads(gatewayNames, messages.values(), before);
  }

  /** Notes each waypoint that is looked up. */
  function surroundings(): { readonly around: Surroundings; readonly asked: () => readonly string[] } {
    let asked: Set<string> | null = null;
    const around: Surroundings = {
      waypoint(key) {
        asked ??= new Set();
        asked.add(key);
        return gateways.waypoint(key);
      },
      namespace: (name) => objects.namespace(name),
    };
    return { around, asked: () => (asked === null ? NONE : [...asked]) };
  }

  return {
    *round() {
      if (agenda.networkGateways) yield* setGateways();
      if (agenda.allocation) {
        agenda.allocation = false;
        statuses.setAddresses(yield* allocator.decide(objects.serviceEntries()));
      }
      yield* setPolicies();
      // From here to the next yield: what depends on the policies that were set so far is in this round.
      round++;
      const { services, sources } = takenAgenda();
      yield* setServices(services);
      yield* setSources(sources);
      reportTargets();
      endPolicies();
    },
    isDone() {
      const { sources, services, policies, everything, targets, networkGateways, allocation } = agenda;
      const left = sources.size + services.size + policies.size + leaving.size + narrowing.size;
      return left === 0 && !everything && !targets && !networkGateways && !allocation;
    },
  };

  /** Those that are gone come first: a pod that is gone has to go before the one that has its name now. */
  function takenAgenda(): Pick<Agenda, 'services' | 'sources'> {
    const taken = { services: agenda.services, sources: agenda.sources };
    agenda.services = new Set();
    agenda.sources = new Set();
    if (!agenda.everything) return taken;
    agenda.everything = false;
    return {
      services: taken.services.union(new Set(objects.services.keys())),
      sources: taken.sources.union(new Set(objects.sources.all())),
    };
  }

  function* setServices(keys: Iterable<string>): Generator<void, void> {
    for (const key of keys) {
      contained(key, () => setService(key));
      yield;
    }
  }

  /** One object that cannot be worked out is not to keep all others from it: what is there of it stays. */
  function contained(name: string, act: () => void): void {
    try {
      act();
    } catch (error) {
      onFailure(name, error);
    }
  }

  function* setSources(sources: Iterable<Source>): Generator<void, void> {
    for (const source of sources) {
      // Its policies have to be there first.
      yield* setPolicies();
      try {
        yield* setSource(source);
      } catch (error) {
        onFailure(source.object === null ? source.kind : `${source.kind} ${keyOf(source.object)}`, error);
      }
      yield;
    }
  }
}

type Reported = Pick<ServiceEntry, 'namespace' | 'name' | 'generation' | 'reported'>;

const NONE: readonly string[] = [];
