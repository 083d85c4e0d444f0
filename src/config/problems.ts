import { CulvertError } from '../errors.ts';
import { MASK } from './secret.ts';

/** Collects every bad value, so that an operator corrects them all at once. */
export class Problems {
  readonly #lines: string[] = [];

  /**
   * Notes one bad value.
   * @param variable the environment variable, with the field after a dot where it holds several
   * @param given what was found there; undefined when the mistake is not in one value
   * @param accepted what would have been accepted, completing "accepted: …"
   */
  add(variable: string, given: string | undefined, accepted: string, options?: { secret?: boolean | undefined }): void {
    const shown = given === undefined ? '' : options?.secret ? ` is ${MASK}` : ` is ${quote(given)}`;
    this.#lines.push(`${variable}${shown}; accepted: ${accepted}`);
  }

  /** Throws CONFIG_INVALID when anything was noted. */
  throwIfAny(): void {
    const lines = this.#lines;
    if (lines.length === 0) return;
    const head = lines.length === 1 ? 'one setting is not valid' : `${lines.length} settings are not valid`;
    throw new CulvertError('CONFIG_INVALID', `${head}:\n${lines.map((line) => `- ${line}`).join('\n')}`);
  }
}

const SHOWN_LENGTH = 120;

function quote(given: string): string {
  return given.length <= SHOWN_LENGTH ? JSON.stringify(given) : `${JSON.stringify(given.slice(0, SHOWN_LENGTH))}…`;
}
