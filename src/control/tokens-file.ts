import { createHash } from 'node:crypto';
import { messageOf } from '../errors.ts';
import { followFile } from '../follow-file.ts';
import { fields } from '../kube/object.ts';
import type { Logger } from '../log/logger.ts';
import type { Caller, TokenReviewer } from './authentication.ts';

/**
 * Tokens of agents where there is no Kubernetes to make and review them: a YAML file that says whose each is. It holds
 * SHA-256 digests, so that whoever reads it cannot use them.
 *
 *     tokens:
 *       - sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
 *         namespace: culvert-system
 *         serviceAccount: culvert-agent
 *         node: node1            # lets it ask for the identities of the pods on that node
 *
 * Instead of `node`, `pod` and `uid` may name the agent's pod among the objects of the folder. The file is followed; one
 * that cannot be used leaves those of before in force.
 */
export async function openTokensFile(
  path: string,
  log: Pick<Logger, 'info' | 'error'>,
): Promise<TokenReviewer & { close(): void }> {
  const { LineCounter, parse, YAMLParseError } = await import('yaml');
  let callers: ReadonlyMap<string, Caller> = new Map();
  const followed = await followFile(path, {
    use(content) {
      callers = readTokens(document(content.toString()));
      log.info('control', 'read the tokens of agents', { file: path, tokens: callers.size });
    },
    failed(error) {
      const kept =
        callers.size === 0 ? 'nobody is let in by a token until it can' : 'the tokens of before stay in force';
      log.error('control', `the file of tokens cannot be used; ${kept}`, { file: path, error: messageOf(error) });
    },
  });
  /** The library's messages quote the text, which may be a token that was meant to be digested. */
  function document(content: string): unknown {
    const lines = new LineCounter();
    try {
      return parse(content, { prettyErrors: false, logLevel: 'error', lineCounter: lines });
    } catch (error) {
      if (!(error instanceof YAMLParseError)) throw new Error('it is not YAML that can be resolved');
      const { line, col } = lines.linePos(error.pos[0]);
      throw new Error(`it is not YAML: line ${line}, column ${col} (${error.code})`);
    }
  }

  return {
    async review(token) {
      const caller = callers.get(createHash('sha256').update(token).digest('hex'));
      return caller ?? { refused: `the token is not in ${path}` };
    },
    close: () => followed.close(),
  };
}

const KEYS = ['sha256', 'namespace', 'serviceAccount', 'node', 'pod', 'uid'] as const;
const NEEDED: readonly string[] = ['sha256', 'namespace', 'serviceAccount'];
const DIGEST = /^[0-9a-f]{64}$/;
const NAME = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/;

/** @throws Error naming the entry and the field */
function readTokens(document: unknown): Map<string, Caller> {
  const { tokens, ...others } = fields(document);
  const [other] = Object.keys(others);
  if (other !== undefined) throw new Error(`${shown(other)} is not known; there is only a list "tokens"`);
  if (!Array.isArray(tokens)) throw new Error('it needs a list "tokens"');
  const callers = new Map<string, Caller>();
  for (const [index, entry] of tokens.entries()) {
    const where = `token ${index + 1}`;
    const { sha256, namespace, serviceAccount, node, pod, uid } = readEntry(where, fields(entry));
    if (callers.has(sha256!)) throw new Error(`${where} is there twice`);
    callers.set(sha256!, {
      namespace: namespace!,
      serviceAccount: serviceAccount!,
      pod: pod === undefined ? null : { name: pod, uid: uid! },
      node: node ?? null,
    });
  }
  return callers;
}

/** A long one may be a token in the wrong place. */
function shown(key: string): string {
  return key.length <= 20 ? JSON.stringify(key) : 'a key';
}

type Entry = Partial<Record<(typeof KEYS)[number], string>>;

function readEntry(where: string, given: Readonly<Record<string, unknown>>): Entry {
  for (const [key, value] of Object.entries(given)) {
    if (!(KEYS as readonly string[]).includes(key)) {
      throw new Error(`${where}: ${shown(key)} is not known; there are ${KEYS.join(', ')}`);
    }
    const form = key === 'sha256' ? DIGEST : NAME;
    // The value itself stays out: it may be a token that was meant to be digested.
    if (typeof value !== 'string' || !form.test(value)) {
      throw new Error(`${where}: ${key} is not ${key === 'sha256' ? '64 hexadecimal digits in lower case' : 'a name'}`);
    }
  }
  const missing = NEEDED.filter((key) => !Object.hasOwn(given, key));
  if (missing.length > 0) throw new Error(`${where} has no ${missing.join(', ')}`);
  if (Object.hasOwn(given, 'pod') !== Object.hasOwn(given, 'uid')) throw new Error(`${where}: pod and uid go together`);
  return given as Entry;
}
