import { randomBytes } from 'node:crypto';
import type { Pod } from './pod-network.ts';
import { SERVICE, WEB_PORT } from './scene.ts';
import { greeting, SECRET_HEADER } from './web-server.ts';

/** One request with curl from inside a pod, and what came of it. */
export interface Conversation {
  readonly from: string;
  readonly url: string;
  /** What the client sent and the server sent back: should nobody read it on the way, then neither of them. */
  readonly secret: string;
  /** Which pod answered with that secret; null when none did. */
  readonly answeredBy: string | null;
  /** What curl said when there was no answer. */
  readonly failure: string;
}

/** What the pods have said to each other. */
export interface Conversations {
  /** frontend → the service's address, until both endpoints have answered. */
  readonly toService: readonly Conversation[];
  /** frontend → api-1 by its IPv6 address; null without IPv6. */
  readonly overIpv6: Conversation | null;
  /** guest → the service: the policy is against it. */
  readonly denied: Conversation;
  /** frontend → a pod that is not enrolled. */
  readonly toOutsider: Conversation;
  /** That pod → api-1. */
  readonly fromOutsider: Conversation;
}

export async function converse(pods: ReadonlyMap<string, Pod>): Promise<Conversations> {
  const pod = (name: string) => pods.get(name)!;
  const service = `http://${SERVICE.hostname}/`;
  const toService: Conversation[] = [];
  const answered = new Set<string | null>();
  while (toService.length < MIN_REQUESTS || (answered.size < 2 && toService.length < MAX_REQUESTS)) {
    const conversation = await ask(pod('frontend'), service);
    toService.push(conversation);
    answered.add(conversation.answeredBy);
  }
  const { ipv6 } = pod('api-1');
  return {
    toService,
    overIpv6: ipv6 === null ? null : await ask(pod('frontend'), `http://[${ipv6}]:${WEB_PORT}/`),
    denied: await ask(pod('guest'), service),
    toOutsider: await ask(pod('frontend'), `http://${pod('outsider').ipv4}:${WEB_PORT}/`),
    fromOutsider: await ask(pod('outsider'), `http://${pod('api-1').ipv4}:${WEB_PORT}/`),
  };
}

const MIN_REQUESTS = 6;
/** Two endpoints are chosen between at random: that one of them is never chosen in so many tries does not happen. */
const MAX_REQUESTS = 60;

/** Only what hangs takes so long, also on a machine that is busy with other things. */
const MAX_SECONDS = '30';

async function ask(client: Pod, url: string): Promise<Conversation> {
  const secret = `secret-${randomBytes(8).toString('hex')}`;
  const { stdout, stderr } = await client.run([
    'curl',
    '--silent',
    '--show-error',
    '--max-time',
    MAX_SECONDS,
    '--noproxy',
    '*',
    // There is no DNS in the demo.
    '--resolve',
    `${SERVICE.hostname}:${SERVICE.port}:${SERVICE.ip}`,
    '--header',
    `${SECRET_HEADER}: ${secret}`,
    url,
  ]);
  const speaker = /^hello, I am ([^\s,]+)/.exec(stdout)?.[1] ?? null;
  const answeredBy = speaker !== null && stdout.trim() === greeting(speaker, secret) ? speaker : null;
  return { from: client.name, url, secret, answeredBy, failure: stderr.trim() || stdout.trim() };
}
