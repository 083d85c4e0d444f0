/** Reading JSON of which nothing is certain: what is not as expected reads as empty. */

/** Labels or annotations of an object; they need not have a prototype. */
export type Labels = Readonly<Record<string, string>>;

export function fields(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}

export function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

export function metadataOf(object: unknown): Readonly<Record<string, unknown>> {
  return fields(fields(object).metadata);
}

export function labels(value: unknown): Labels {
  return Object.fromEntries(Object.entries(fields(value)).filter(([, text]) => typeof text === 'string')) as Labels;
}
