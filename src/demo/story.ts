import type { AccessLine } from './access-log.ts';
import { type Conversations, converse } from './conversations.ts';
import { showAnswers, showLinks, showListeners, showMetrics, showWhoTalked } from './findings.ts';
import { actors, NAMESPACE, SERVICE, WEB_PORT } from './scene.ts';
import type { Screen } from './screen.ts';
import { createStage, type Stage } from './stage.ts';

export interface StoryOptions {
  readonly screen: Screen;
  /** Aborted when the user wants to end. */
  readonly stop: AbortSignal;
  /** End after the story instead of waiting for `stop`. */
  readonly once: boolean;
  /** Gets every line of the agent's log. */
  readonly echoLog: ((line: string) => void) | null;
}

/**
 * The demo from beginning to end. Resolves with the exit code: 0 when every check held. Whatever happens, everything
 * that was made is removed before it settles.
 * @throws what made it impossible, or the reason of `stop` when that comes before the end of the story
 */
export async function playStory({ screen, stop, once, echoLog }: StoryOptions): Promise<number> {
  const builder = createStage(echoLog);
  const stopped = new Promise<never>((_, reject) => stop.addEventListener('abort', () => reject(stop.reason)));
  stopped.catch(() => {});
  const unlessStopped = <T>(work: Promise<T>) => Promise.race([work, stopped]);
  try {
    await tell();
    if (!once) {
      screen.say('');
      inviteToTry(screen, builder.stage());
      await Promise.race([stopped.catch(() => {}), builder.stage().agent.died]);
    }
  } finally {
    if (!once || stop.aborted) screen.say('\nremoving pods, rules and processes …');
    await builder.close();
  }
  return conclude(screen);

  // Waits for nothing that a user who wants to end would have to wait for, and tells nothing after that.
  async function tell(): Promise<void> {
    screen.step('A node with five pods');
    screen.say('Each pod is a network namespace with a link to a bridge, as on a Kubernetes node.');
    const pods = await unlessStopped(builder.makePods());
    screen.table(
      ['POD', 'ADDRESSES', 'SERVICE ACCOUNT', 'IN THE MESH', 'RUNS'],
      actors.map(({ name, serviceAccount, enrolled, serves }) => {
        const { ipv4, ipv6 } = pods.get(name)!;
        return [
          name,
          [ipv4, ipv6 ?? ''].join(' '),
          `${NAMESPACE}/${serviceAccount}`,
          enrolled ? 'enrolled' : 'not enrolled',
          serves ? `a web server on port ${WEB_PORT}` : 'curl',
        ];
      }),
    );
    screen.say(`Service ${SERVICE.hostname} (${SERVICE.ip}) has the endpoints api-1 and api-2.`);

    screen.step('The agent, and pods that know nothing of it');
    await unlessStopped(builder.startAgent());
    await unlessStopped(builder.enrol());
    const stage = builder.stage();
    screen.say(
      'The agent got the namespace of each enrolled pod as a file descriptor, and listens inside it.\n' +
        `Rules in the pod (${stage.rules.name}) lead its connections there. The pods themselves are unchanged.`,
    );

    screen.step('The pods talk');
    const conversations = await unlessStopped(converse(pods));
    showAnswers(screen, conversations);

    screen.step('Who talked to whom, from the access log of the agent');
    await unlessStopped(stage.agent.until((access) => isComplete(access, conversations), LOG_PATIENCE_MS));
    showWhoTalked(screen, stage.agent.access, conversations);

    screen.step('What was on the links between the pods');
    showLinks(screen, stage, conversations);

    screen.step(`What the agent has in the pods, from http://localhost:${stage.userPorts.admin}/config_dump`);
    await unlessStopped(showListeners(screen, stage));

    screen.step(`What it counted, from http://localhost:${stage.userPorts.metrics}/metrics`);
    await unlessStopped(showMetrics(screen, stage, conversations));
  }
}

/** A line is written when its connection has ended at both sides, which may be a moment after curl has its answer. */
const LOG_PATIENCE_MS = 30_000;

/** Both ends of what went through tunnels, one end of what did not. */
function isComplete(access: readonly AccessLine[], { toService, overIpv6 }: Conversations): boolean {
  const tunnelled = toService.length + (overIpv6 === null ? 0 : 1) + 1;
  return access.length >= 2 * tunnelled + 2;
}

function inviteToTry(screen: Screen, { userPorts, pods, meshFile, throughDoor }: Stage): void {
  const curl = (name: string, url: string) => {
    const { netnsName, netnsPath } = pods.get(name)!;
    const enter = throughDoor
      ? `nsenter --preserve-credentials -U -m -t ${process.pid} nsenter --net=${netnsPath}`
      : `ip netns exec ${netnsName}`;
    return `  ${enter} curl -sS ${url}`;
  };
  screen.say(
    [
      'The demo stays up until Ctrl-C. Things to try meanwhile, from another terminal:',
      '',
      `  curl -s localhost:${userPorts.admin}/config_dump`,
      `  curl -s localhost:${userPorts.metrics}/metrics`,
      curl('frontend', SERVICE.ip),
      curl('outsider', `${pods.get('api-1')!.ipv4}:${WEB_PORT}`),
      '',
      'This is denied, until the mesh is edited so that the policy is against somebody else:',
      '',
      curl('guest', SERVICE.ip),
      `  sed -i s,sa/guest,sa/nobody, ${meshFile}`,
    ].join('\n'),
  );
}

function conclude(screen: Screen): number {
  const failures = screen.failures();
  screen.say('');
  if (failures.length === 0) screen.say(`All ${screen.checks()} checks held.`);
  else
    screen.say(
      `${failures.length} of ${screen.checks()} checks did not hold:\n${failures.map((text) => `✘ ${text}`).join('\n')}`,
    );
  return failures.length === 0 ? 0 : 1;
}
