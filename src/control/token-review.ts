import { createHash } from 'node:crypto';
import { expiryOf, printable } from '../control-plane/failure.ts';
import type { KubeApi } from '../kube/api.ts';
import { fields, text } from '../kube/object.ts';
import type { Caller, TokenRefused, TokenReviewer } from './authentication.ts';
import { CallRefused } from './call-refused.ts';

export interface TokenReviewOptions {
  /** Give it a shorter timeout than callers have patience. */
  readonly api: Pick<KubeApi, 'create'>;
  /** What a token must have been made for. */
  readonly audience: string;
  /** ms since 1970 */
  readonly now?: () => number;
  /** ms; a clock that is not set */
  readonly monotonic?: () => number;
  /** How long a good answer is believed, in ms; at most 60 000. */
  readonly rememberMs?: number;
}

/**
 * Asks the API server whose a token is (TokenReview, authentication.k8s.io/v1). Only good answers are remembered, for a
 * minute at most: an agent asks for the certificates of all pods of a node with one token. `review` rejects with KubeError
 * when the API server does not answer.
 */
export function createTokenReviewer(options: TokenReviewOptions): TokenReviewer {
  const { api, audience, now = Date.now, monotonic = () => performance.now() } = options;
  const rememberMs = Math.min(options.rememberMs ?? MAX_REMEMBER_MS, MAX_REMEMBER_MS);
  /** By digest of the token, in the order in which they were asked about. Until when: by the clock that is not set. */
  const remembered = new Map<string, { readonly caller: Caller; readonly until: number; readonly expiry: number }>();
  const underway = new Map<string, Promise<Caller | TokenRefused>>();
  /** How many of them each address has caused. */
  const perAddress = new Map<string, number>();

  return {
    async review(token, ip) {
      const key = createHash('sha256').update(token).digest('base64');
      const known = remembered.get(key);
      if (known !== undefined && monotonic() < known.until && now() < known.expiry) return known.caller;
      remembered.delete(key);
      const asked = underway.get(key);
      if (asked !== undefined) return asked;
      const own = perAddress.get(ip) ?? 0;
      if (own >= (underway.size < BUSY ? MAX_PER_ADDRESS : MAX_PER_ADDRESS_WHEN_BUSY)) {
        throw new CallRefused(
          'UNAVAILABLE',
          'too many calls at once, try again',
          `${ip} has ${own} tokens under review`,
        );
      }
      perAddress.set(ip, own + 1);
      const answer = ask(token, key).finally(() => {
        underway.delete(key);
        const left = perAddress.get(ip)! - 1;
        if (left === 0) perAddress.delete(ip);
        else perAddress.set(ip, left);
      });
      underway.set(key, answer);
      return answer;
    },
  };

  async function ask(token: string, key: string): Promise<Caller | TokenRefused> {
    const asked = monotonic();
    const review = await api.create('/apis/authentication.k8s.io/v1/tokenreviews', {
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'TokenReview',
      spec: { token, audiences: [audience] },
    });
    const verdict = readReview(review, audience, token);
    if (!('refused' in verdict)) {
      const expiry = expiryOf(token) ?? Number.POSITIVE_INFINITY;
      remembered.set(key, { caller: verdict, until: asked + rememberMs, expiry });
      forgetOld();
    }
    return verdict;
  }

  function forgetOld(): void {
    for (const [key, { until }] of remembered) {
      if (until > monotonic() && remembered.size <= MAX_REMEMBERED) return;
      remembered.delete(key);
    }
  }
}

const MAX_REMEMBER_MS = 60_000;
const MAX_REMEMBERED = 10_000;
/** An agent has one token, and two while it is renewed. */
const MAX_PER_ADDRESS = 16;
const MAX_PER_ADDRESS_WHEN_BUSY = 4;
/** From so many on, those that have many wait, and nobody else: strangers who guess cannot shut agents out. */
const BUSY = 128;

const USER = /^system:serviceaccount:([a-z0-9][a-z0-9.-]{0,252}):([a-z0-9][a-z0-9.-]{0,252})$/;
const POD_NAME = 'authentication.kubernetes.io/pod-name';
const POD_UID = 'authentication.kubernetes.io/pod-uid';

function readReview(review: unknown, audience: string, token: string): Caller | TokenRefused {
  const { authenticated, audiences, user, error } = fields(fields(review).status);
  if (authenticated !== true) {
    return {
      refused: `the API server does not accept the token: ${printable(text(error), token) || 'no reason given'}`,
    };
  }
  // A server that does not know audiences accepts tokens made for itself, and lists none.
  if (!list(audiences).includes(audience)) return { refused: `the token was not made for ${audience}` };
  const { username, groups, extra } = fields(user);
  const [, namespace, serviceAccount] = USER.exec(text(username)) ?? [];
  if (namespace === undefined || serviceAccount === undefined || !list(groups).includes('system:serviceaccounts')) {
    return { refused: `the token is of ${printable(text(username), token)}, which is no service account` };
  }
  const bound = fields(extra);
  const [name, ...otherNames] = list(bound[POD_NAME]);
  const [uid, ...otherUids] = list(bound[POD_UID]);
  const isBound = name && uid && otherNames.length === 0 && otherUids.length === 0;
  return { namespace, serviceAccount, pod: isBound ? { name, uid } : null, node: null };
}

function list(value: unknown): string[] {
  return Array.isArray(value) ? value.map(text) : [];
}
