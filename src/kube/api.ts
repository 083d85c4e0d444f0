/**
 * Requests to the Kubernetes API server, over Node's own https. @kubernetes/client-node is not used: importing it alone
 * takes the process from 42 to 127 MB resident (measured with 2.0.1), more than a node agent with 250 pods may have.
 */
import { readFileSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import type { Agent, RequestOptions } from 'node:https';
import { CulvertError, messageOf } from '../errors.ts';
import { fields, text } from './object.ts';

/** Paths are those of the server, e.g. `/api/v1/pods`. What changes an object resolves with what it has become. */
export interface KubeApi {
  /** @throws KubeError */
  get(path: string): Promise<unknown>;
  /** POST to a collection, or to a resource that answers (TokenReview). @throws KubeError; a conflict when it exists */
  create(path: string, object: unknown): Promise<unknown>;
  /** PUT. With `metadata.resourceVersion` only when nobody has changed it meanwhile. @throws KubeError */
  replace(path: string, object: unknown): Promise<unknown>;
  /** A JSON merge patch (RFC 7386). @throws KubeError */
  mergePatch(path: string, patch: unknown): Promise<unknown>;
  /**
   * Server-side apply: `object` holds all that `fieldManager` wants to own, of the object or of the subresource at the
   * end of `path`. Fields of others that it names are taken over. Creates the object when there is none.
   * @throws KubeError
   */
  apply(path: string, object: unknown, fieldManager: string): Promise<unknown>;
  /** @throws KubeError; a conflict when `preconditions` name another object than there is */
  delete(path: string, preconditions?: { readonly uid?: string; readonly resourceVersion?: string }): Promise<void>;
  /**
   * Hands over each line of an endless answer. Resolves when the server ends it.
   * @param idleMs longest silence, in ms
   * @param onOpen called when the server has begun to answer, which may be long before the first line
   * @throws KubeError; 'KUBE_STALLED' after that silence, 'KUBE_CLOSED' when `signal` ends it
   */
  lines(
    path: string,
    onLine: (line: string) => void,
    idleMs: number,
    signal: AbortSignal,
    onOpen?: () => void,
  ): Promise<void>;
  close(): void;
}

export type KubeErrorCode = 'KUBE_STATUS' | 'KUBE_UNREACHABLE' | 'KUBE_STALLED' | 'KUBE_CLOSED' | 'KUBE_ANSWER';

export class KubeError extends CulvertError<KubeErrorCode> {
  /** The HTTP status; 0 when there was none. */
  readonly status: number;
  /** How long the API server asks to be left alone (Retry-After), in ms; 0 when it did not say. */
  readonly retryAfterMs: number;

  constructor(
    code: KubeErrorCode,
    message: string,
    status = 0,
    options: { cause?: unknown; retryAfterMs?: number } = {},
  ) {
    super(code, message, options);
    this.name = 'KubeError';
    this.status = status;
    this.retryAfterMs = options.retryAfterMs ?? 0;
  }
}

/** The object, or the kind, does not exist. */
export function isNotFound(error: unknown): boolean {
  return error instanceof KubeError && error.status === 404;
}

/** The object exists already, or is not the one or not as it was expected to be. */
export function isConflict(error: unknown): boolean {
  return error instanceof KubeError && error.status === 409;
}

export interface KubeApiOptions {
  readonly host: string;
  readonly port: number;
  /** With `token` and `ca.crt`; both are read anew for each connection or request, because Kubernetes rotates them. */
  readonly serviceAccountDir: string;
  /** How long a request may take, in ms. */
  readonly timeoutMs?: number;
}

export function createKubeApi({ host, port, serviceAccountDir, timeoutMs = 15_000 }: KubeApiOptions): KubeApi {
  // Not imported: an ES import of node:https reads all of its properties, which loads more than is used.
  const https = process.getBuiltinModule('node:https');
  const agent = new https.Agent({ keepAlive: true, maxSockets: 8, timeout: 60_000 });
  const server = `https://${host.includes(':') ? `[${host}]` : host}:${port}`;

  return {
    get: (path) => request('GET', path, null),
    create: (path, object) => request('POST', path, json(object)),
    replace: (path, object) => request('PUT', path, json(object)),
    mergePatch: (path, patch) => request('PATCH', path, { ...json(patch), type: 'application/merge-patch+json' }),
    apply(path, object, fieldManager) {
      const target = `${path}?${new URLSearchParams({ fieldManager, force: 'true' })}`;
      // Every JSON text is YAML.
      return request('PATCH', target, { ...json(object), type: 'application/apply-patch+yaml' });
    },
    async delete(path, preconditions) {
      await request('DELETE', path, preconditions === undefined ? null : json({ preconditions }));
    },
    async lines(path, onLine, idleMs, signal, onOpen) {
      const watchdog = createWatchdog(`${server}${named(path)}: nothing came for ${idleMs} ms`, idleMs, signal);
      try {
        const response = await send('GET', path, null, null, watchdog.signal);
        if (response.statusCode !== 200) throw await statusError('GET', path, response);
        onOpen?.();
        await readLines(response, (line) => {
          watchdog.alive();
          onLine(line);
        });
      } catch (error) {
        throw watchdog.explain(error);
      } finally {
        watchdog.stop();
      }
    },
    close: () => agent.destroy(),
  };

  async function request(method: string, path: string, body: Body | null): Promise<unknown> {
    const watchdog = createWatchdog(`${server}${named(path)}: no answer within ${timeoutMs} ms`, timeoutMs, null);
    try {
      const response = await send(method, path, body, agent, watchdog.signal);
      if (response.statusCode! >= 300) throw await statusError(method, path, response);
      const answer = await readBody(response);
      try {
        return JSON.parse(answer);
      } catch (cause) {
        throw new KubeError('KUBE_ANSWER', `${method} ${named(path)}: the answer is not JSON`, response.statusCode, {
          cause,
        });
      }
    } catch (error) {
      throw watchdog.explain(error);
    } finally {
      watchdog.stop();
    }
  }

  function send(
    method: string,
    path: string,
    body: Body | null,
    agent: Agent | null,
    signal: AbortSignal,
  ): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const unreachable = (cause: unknown) =>
        reject(
          new KubeError('KUBE_UNREACHABLE', `${method} ${server}${named(path)}: ${messageOf(cause)}`, 0, { cause }),
        );
      try {
        const options: RequestOptions = {
          method,
          signal,
          agent: agent ?? false,
          ca: readFileSync(`${serviceAccountDir}/ca.crt`),
          headers: {
            authorization: `Bearer ${readFileSync(`${serviceAccountDir}/token`, 'utf8').trim()}`,
            accept: 'application/json',
            ...(body === null ? {} : { 'content-type': body.type, 'content-length': Buffer.byteLength(body.text) }),
          },
        };
        https.request(`${server}${path}`, options, resolve).on('error', unreachable).end(body?.text);
      } catch (cause) {
        const what = `the service account of the pod cannot be read: ${messageOf(cause)}`;
        unreachable(new Error(`${what} (is its token mounted?)`, { cause }));
      }
    });
  }
}

interface Body {
  readonly type: string;
  readonly text: string;
}

function json(value: unknown): Body {
  return { type: 'application/json', text: JSON.stringify(value) };
}

/** Long enough for any object that etcd takes (1.5 MiB), as JSON. */
const MAX_LINE_CHARACTERS = 8 * 1024 * 1024;
const MAX_BODY_BYTES = 64 * 1024 * 1024;
/** Nobody is left alone for longer, whatever is asked for. */
const MAX_RETRY_AFTER_MS = 60_000;

async function readLines(response: IncomingMessage, onLine: (line: string) => void): Promise<void> {
  let rest = '';
  response.setEncoding('utf8');
  for await (const chunk of response as AsyncIterable<string>) {
    const lines = chunk.split('\n');
    rest += lines[0]!;
    for (let at = 1; at < lines.length; at++) {
      if (rest !== '') onLine(rest);
      rest = lines[at]!;
    }
    if (rest.length > MAX_LINE_CHARACTERS) throw new KubeError('KUBE_ANSWER', 'an event of a watch is too long');
  }
}

async function readBody(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > MAX_BODY_BYTES) throw new KubeError('KUBE_ANSWER', 'an answer of the API server is too long');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

/** How errors name a path. The query of a watch is another one each time, which would make each failure a new one. */
function named(path: string): string {
  return path.split('?', 1)[0]!;
}

async function statusError(method: string, path: string, response: IncomingMessage): Promise<KubeError> {
  const status = response.statusCode!;
  let reason = response.statusMessage ?? '';
  try {
    reason = text(fields(JSON.parse(await readBody(response))).message) || reason;
  } catch {
    // Not a Status object: the status line has to do.
  }
  const hint = status === 401 || status === 403 ? ' (look at the roles of the ServiceAccount and their bindings)' : '';
  const seconds = Number(response.headers['retry-after'] ?? 0);
  const retryAfterMs = seconds > 0 ? Math.min(seconds * 1000, MAX_RETRY_AFTER_MS) : 0;
  return new KubeError('KUBE_STATUS', `${method} ${named(path)}: ${status} ${reason}${hint}`, status, { retryAfterMs });
}

/** Ends a request by the clock or by its owner, and tells which of the two it was. */
function createWatchdog(complaint: string, ms: number, owner: AbortSignal | null) {
  const controller = new AbortController();
  let stalled = false;
  let timer: NodeJS.Timeout;
  const arm = () => {
    timer = setTimeout(() => {
      stalled = true;
      controller.abort();
    }, ms);
  };
  const onOwner = () => controller.abort();
  if (owner?.aborted) controller.abort();
  owner?.addEventListener('abort', onOwner);
  arm();
  return {
    signal: controller.signal,
    alive() {
      timer.refresh();
    },
    explain(error: unknown): KubeError {
      if (stalled) return new KubeError('KUBE_STALLED', complaint);
      if (owner?.aborted) return new KubeError('KUBE_CLOSED', 'closed');
      return error instanceof KubeError
        ? error
        : new KubeError('KUBE_UNREACHABLE', `connection to the API server: ${messageOf(error)}`, 0, { cause: error });
    },
    stop() {
      clearTimeout(timer);
      owner?.removeEventListener('abort', onOwner);
      // A body that was not read to its end must not keep its socket.
      controller.abort();
    },
  };
}
