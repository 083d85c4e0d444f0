/** `istio.workload.Address`: a workload or a service, as the control plane sends it (spec §9.7). */
import type { WorkloadUpdate } from '../state/mesh-state.ts';
import type { ServiceDefinition } from '../state/types.ts';
import { readService } from './service.ts';
import { endOf, type Reader, readFields } from './wire.ts';
import { readWorkload } from './workload.ts';

export type Address =
  | { readonly kind: 'workload'; readonly update: WorkloadUpdate }
  | { readonly kind: 'service'; readonly definition: ServiceDefinition };

/**
 * Reads an Address that starts where the reader is.
 * @throws Error that says what cannot be used: an unknown enumeration value, an address of a wrong length …
 */
export function readAddress(reader: Reader, end: number): Address {
  let address: Address | null = null;
  readFields(reader, end, (field, wireType) => {
    if (field === 1) address = { kind: 'workload', update: readWorkload(reader, endOf(reader, wireType)) };
    else if (field === 2) address = { kind: 'service', definition: readService(reader, endOf(reader, wireType)) };
    else return false;
    return true;
  });
  if (address === null) throw new Error('neither a workload nor a service');
  return address;
}
