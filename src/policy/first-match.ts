/**
 * Hot path: runs once per connection and table, and once per live connection when policies change. Tables are read in
 * place, without allocation per rule (`npm run bench -- policy`).
 */
import { textThatHolds } from './conditions.ts';
import type { Facts } from './facts.ts';
import { Entry, Header, hashOf, type PolicyTable } from './table.ts';

/** Key of the first policy of a table of which a rule matches; null when there is none. */
export function firstMatch({ words, text }: PolicyTable, facts: Facts): string | null {
  const count = findHolding(words, text, facts);
  let first = NONE;
  for (let index = 0; index < count; index++) {
    const entry = words[Header.CONDITIONS]! + holding[index]! * Entry.SIZE;
    first = firstRule(words, words[entry + Entry.FILED]!, words[entry + Entry.FILED_COUNT]!, first);
  }
  first = firstRule(words, words[Header.UNFILED]!, words[Header.UNFILED_COUNT]!, first);
  return first === NONE ? null : keyOf(words, text, words[first]!);
}

/** Beyond every rule. */
const NONE = 0x7fff_ffff;

/** The conditions that hold for the connection in hand: their numbers, and by number the turn in which they held. */
let holding = new Int32Array(64);
let heldIn = new Uint32Array(1024);
let turn = 0;

/** Fills `holding` and `heldIn`; returns how many hold. */
function findHolding(words: Int32Array, text: Uint16Array, facts: Facts): number {
  const shapes = words[Header.SHAPE_COUNT]!;
  if (holding.length < shapes) holding = new Int32Array(2 * shapes);
  const conditions = words[Header.CONDITION_COUNT]!;
  if (heldIn.length < conditions) heldIn = new Uint32Array(2 * conditions);
  if (++turn > 0xffff_ffff) {
    heldIn.fill(0);
    turn = 1;
  }
  let count = 0;
  const end = words[Header.SHAPES]! + 2 * shapes;
  for (let at = words[Header.SHAPES]!; at < end; at += 2) {
    const kind = words[at]!;
    const held = textThatHolds(kind, words[at + 1]!, facts);
    const number = held === null ? -1 : findCondition(words, text, kind, held);
    if (number < 0) continue;
    heldIn[number] = turn;
    holding[count++] = number;
  }
  return count;
}

function findCondition(words: Int32Array, text: Uint16Array, kind: number, wanted: string): number {
  const hash = hashOf(kind, wanted);
  const mask = words[Header.HASH_MASK]!;
  const slots = words[Header.HASH]!;
  for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
    const number = words[slots + slot]! - 1;
    if (number < 0) return -1;
    const entry = words[Header.CONDITIONS]! + number * Entry.SIZE;
    if (
      words[entry + Entry.HASH] === hash &&
      words[entry + Entry.KIND] === kind &&
      hasText(words, text, entry, wanted)
    ) {
      return number;
    }
  }
}

function hasText(words: Int32Array, text: Uint16Array, entry: number, wanted: string): boolean {
  if (words[entry + Entry.TEXT_LENGTH] !== wanted.length) return false;
  const start = words[entry + Entry.TEXT]!;
  for (let at = 0; at < wanted.length; at++) if (text[start + at] !== wanted.charCodeAt(at)) return false;
  return true;
}

/** The first of the listed rules that matches, if it comes before `first`. Rules are listed in order. */
function firstRule(words: Int32Array, list: number, count: number, first: number): number {
  for (let index = 0; index < count; index++) {
    const rule = words[list + index]!;
    if (rule >= first) return first;
    if (ruleMatches(words, rule)) return rule;
  }
  return first;
}

function ruleMatches(words: Int32Array, rule: number): boolean {
  const end = words[rule + 1]!;
  for (let clause = rule + 2; clause < end; clause = words[clause]!) {
    if (!clauseMatches(words, clause)) return false;
  }
  return true;
}

function clauseMatches(words: Int32Array, clause: number): boolean {
  const end = words[clause]!;
  for (let match = clause + 1; match < end; match = words[match]!) {
    if (matchHolds(words, match)) return true;
  }
  return false;
}

function matchHolds(words: Int32Array, match: number): boolean {
  const end = words[match]!;
  let at = match + 1;
  while (at < end) {
    const size = words[at++]!;
    const isWanted = size > 0;
    const last = at + (isWanted ? size : -size);
    let holds = false;
    for (; at < last; at++) {
      if (heldIn[words[at]!] === turn) {
        holds = true;
        break;
      }
    }
    if (holds !== isWanted) return false;
    at = last;
  }
  return true;
}

function keyOf(words: Int32Array, text: Uint16Array, policy: number): string {
  const at = words[Header.POLICIES]! + 2 * policy;
  const start = words[at]!;
  const end = start + words[at + 1]!;
  let key = '';
  for (let index = start; index < end; index++) key += String.fromCharCode(text[index]!);
  return key;
}
