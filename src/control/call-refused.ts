import { STATUS } from '../control-plane/status.ts';
import { CulvertError } from '../errors.ts';

export type RefusedStatus = 'UNAUTHENTICATED' | 'INVALID_ARGUMENT' | 'RESOURCE_EXHAUSTED' | 'UNAVAILABLE' | 'INTERNAL';

/** A call that is not fulfilled. `message` is what the caller is told; `reason` is for our own log. */
export class CallRefused extends CulvertError<RefusedStatus> {
  /** The status of gRPC. */
  readonly status: number;
  readonly reason: string;

  constructor(code: RefusedStatus, message: string, reason: string, options?: { cause?: unknown }) {
    super(code, message, options);
    this.name = 'CallRefused';
    this.status = STATUS[code];
    this.reason = reason;
  }
}
