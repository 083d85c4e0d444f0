/**
 * The one error class of culvert. `code` is stable and is what logs, metrics and callers match on; `message` names the
 * side and the likely cause; the original error is kept as `cause`.
 */
export class CulvertError<Code extends string = string> extends Error {
  readonly code: Code;

  constructor(code: Code, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'CulvertError';
    this.code = code;
  }
}

/** The text of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
