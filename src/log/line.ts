/**
 * Log lines of ordinary events, in the plain and the JSON format (spec §13.2, §13.3).
 */
import { bare, jsonString, quoted, singleLine } from './escape.ts';
import type { Level } from './level-filter.ts';
import { redactField, redactText } from './redact.ts';

export type LogFormat = 'plain' | 'json';

/**
 * One write(2) of at most PIPE_BUF bytes reaches a pipe whole, whatever other threads and processes write to it
 * (pipe(7)); so no line is longer, the line feed included.
 */
export const MAX_LINE_BYTES = 4096;

/** A text printed without quotes in the plain format where that is safe: addresses, durations. */
export interface BareText {
  readonly bare: string;
}

/** null and undefined are left out; errors give their messages, other objects their JSON. */
export type FieldValue = string | number | bigint | boolean | null | undefined | Error | BareText | object;
export type Fields = Readonly<Record<string, FieldValue>>;

/** Something an event happened within, such as the session or the pod it is about. */
export interface Span {
  readonly name: string;
  readonly fields: Fields;
}

export interface LogEvent {
  readonly level: Level;
  readonly target: string;
  readonly message: string;
  readonly fields: Fields;
  /** Outermost first. */
  readonly spans: readonly Span[];
}

/** The line of an event with its line feed, at most MAX_LINE_BYTES long: overlong values are cut and end in `…`. */
export function formatEvent(event: LogEvent, timestamp: string, format: LogFormat): string {
  const render = format === 'json' ? renderJson : renderPlain;
  return fitted((limit) => render(event, timestamp, limit)) ?? render(skeletonOf(event), timestamp, SHORTEST_VALUE);
}

/** Values are cut to these lengths, in characters, until the line fits. An escaped character may take 8 bytes. */
const VALUE_LIMITS = [Number.POSITIVE_INFINITY, 1024, 256, 64, 16];
const SHORTEST_VALUE = 64;

/** The first rendering that fits into a line; null when none does. */
export function fitted(render: (limit: number) => string): string | null {
  for (const limit of VALUE_LIMITS) {
    const line = render(limit);
    if (fits(line)) return line;
  }
  return null;
}

/** Cuts a text to `limit` characters and marks the cut. */
export function cut(text: string, limit: number): string {
  return text.length <= limit ? text : `${text.slice(0, limit)}…`;
}

function fits(line: string): boolean {
  // A UTF-16 unit is at most three bytes of UTF-8.
  return line.length * 3 <= MAX_LINE_BYTES || Buffer.byteLength(line) <= MAX_LINE_BYTES;
}

/** What is left of an event whose fields do not fit at any length. */
function skeletonOf(event: LogEvent): LogEvent {
  return { ...event, target: cut(event.target, SHORTEST_VALUE), fields: { truncated: true }, spans: [] };
}

function renderPlain(event: LogEvent, timestamp: string, limit: number): string {
  let line = `${timestamp}\t${event.level}\t${singleLine(event.target)}`;
  for (const span of event.spans) line += `:${span.name}{${plainFields(span.fields, limit)}}`;
  line += `\t${singleLine(cut(redactText(event.message), limit))}`;
  const fields = plainFields(event.fields, limit);
  return fields === '' ? `${line}\n` : `${line}\t${fields}\n`;
}

function plainFields(fields: Fields, limit: number): string {
  let text = '';
  for (const name in fields) {
    const value = plainValue(redactField(name, fields[name]), limit);
    if (value !== null) text += `${text === '' ? '' : ' '}${bare(name)}=${value}`;
  }
  return text;
}

function plainValue(value: FieldValue, limit: number): string | null {
  if (value === null || value === undefined) return null;
  if (typeof value === 'object' && 'bare' in value) return bare(cut(redactText(String(value.bare)), limit));
  return isBareType(value) ? String(value) : quoted(cut(redactText(textOf(value)), limit));
}

function renderJson(event: LogEvent, timestamp: string, limit: number): string {
  const head = `{"level":"${event.level}","time":"${timestamp}","scope":${jsonString(event.target)}`;
  let line = `${head},"message":${jsonString(cut(redactText(event.message), limit))}${jsonFields(event.fields, limit)}`;
  for (const span of event.spans) line += `,${jsonString(span.name)}:{${jsonFields(span.fields, limit).slice(1)}}`;
  return `${line}}\n`;
}

/** `,"name":value` for each field. Numbers stay numbers, everything else becomes a string (spec §13.3). */
function jsonFields(fields: Fields, limit: number): string {
  let text = '';
  for (const name in fields) {
    const value = redactField(name, fields[name]);
    if (value === null || value === undefined) continue;
    const plain = typeof value === 'object' && 'bare' in value ? String(value.bare) : value;
    text += `,${jsonString(name)}:`;
    text += isJsonNumber(plain) ? String(plain) : jsonString(cut(redactText(textOf(plain)), limit));
  }
  return text;
}

function isJsonNumber(value: FieldValue): boolean {
  return typeof value === 'bigint' || (typeof value === 'number' && Number.isFinite(value));
}

function isBareType(value: FieldValue): boolean {
  return typeof value === 'number' || typeof value === 'bigint' || typeof value === 'boolean';
}

function textOf(value: NonNullable<FieldValue>): string {
  if (value instanceof Error) return causesOf(value).join(': ');
  if (typeof value !== 'object') return String(value);
  try {
    return JSON.stringify(value) ?? '';
  } catch {
    // Circular, or holds a bigint: a log call must not throw.
    return String(value);
  }
}

/** The messages of an error and its causes, without those that the message before already ends with. */
function causesOf(error: Error): string[] {
  const messages: string[] = [];
  let next: unknown = error;
  for (let depth = 0; next !== undefined && next !== null && depth < 8; depth++) {
    const message = next instanceof Error ? next.message : String(next);
    if (message !== '' && !messages.at(-1)?.endsWith(message)) messages.push(message);
    next = next instanceof Error ? next.cause : undefined;
  }
  return messages;
}
