/** Pods of busybox that ask and answer, in the namespace `demo`. */
import assert from 'node:assert/strict';
import { eventually } from '../cni/support/eventually.ts';
import type { KubeObject, Node } from './cluster.ts';
import { cluster } from './running-cluster.ts';

export const STATUS = 'ambient.istio.io/redirection';
export const AMBIENT = 'istio.io/dataplane-mode=ambient';
/** How long something may take, in ms. */
export const WAIT = 60_000;

/** With the service account without which the API server refuses pods, and which comes by itself. */
export async function createNamespace(name: string): Promise<void> {
  await cluster.kubectl('create', 'namespace', name);
  await eventually(
    `${name} has a service account`,
    () => cluster.kubectl('get', 'serviceaccount', '-n', name, 'default'),
    WAIT,
  );
}

export async function runPod(
  name: string,
  node: Node,
  {
    namespace = 'demo',
    labels = {},
    serves = false,
    probes = false,
    serviceAccount = 'default',
  }: { namespace?: string; labels?: object; serves?: boolean; probes?: boolean; serviceAccount?: string },
): Promise<void> {
  const serve = `mkdir -p /www; echo I am ${name} > /www/index.html; exec httpd -f -v -p 8080 -h /www`;
  // That the machine is slow is no failure; so it takes a while until kubectl tells of probes that fail (`probesAnswered`).
  const probe = { httpGet: { path: '/', port: 8080 }, periodSeconds: 1, timeoutSeconds: 15, failureThreshold: 3 };
  await cluster.apply({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace, labels },
    spec: {
      nodeName: node,
      serviceAccountName: serviceAccount,
      terminationGracePeriodSeconds: 0,
      containers: [
        {
          name: 'app',
          image: 'docker.io/local/busybox:1',
          imagePullPolicy: 'Never',
          command: ['/bin/busybox', 'sh', '-c', serves ? serve : 'exec sleep 100000'],
          ...(probes ? { readinessProbe: probe, livenessProbe: probe } : {}),
        },
      ],
    },
  });
}

export async function pod(name: string, namespace = 'demo'): Promise<KubeObject> {
  return await cluster.json('get', 'pod', '-n', namespace, name);
}

export async function podRunning(name: string, namespace = 'demo'): Promise<void> {
  await cluster.kubectl('wait', '-n', namespace, `pod/${name}`, '--for=condition=Ready', '--timeout=180s');
}

export async function podIp(name: string): Promise<string> {
  return (await pod(name)).status.podIP!;
}

export async function status(name: string): Promise<string | undefined> {
  return (await pod(name)).metadata.annotations?.[STATUS];
}

export async function podsOf(app: string): Promise<readonly KubeObject[]> {
  return (await cluster.json('get', 'pods', '-n', 'culvert-system', '-l', `app.kubernetes.io/name=${app}`)).items;
}

export async function rolledOut(name: string, kind = 'daemonset'): Promise<void> {
  await cluster.kubectl('rollout', 'status', '-n', 'culvert-system', `${kind}/${name}`, '--timeout=240s');
}

/** How many of the kubelet's probes a pod with probes has answered. They come from an address of their own (spec node-04). */
export async function probesAnswered(name: string): Promise<number> {
  const log = await cluster.kubectl('logs', '-n', 'demo', name);
  return log.split('\n').filter((line) => /\b169\.254\.7\.127\b.*response:200/.test(line)).length;
}

export async function agentLog(daemonSet: string, node: Node): Promise<string> {
  const found = (await podsOf(daemonSet)).find(
    ({ metadata, spec }) => spec.nodeName === node && metadata.deletionTimestamp === undefined,
  );
  assert.ok(found, `${node} has no ${daemonSet}`);
  return await cluster.kubectl('logs', '-n', 'culvert-system', found.metadata.name);
}

/** The busybox of these nodes is static: its wget crashes on looking up names, nc does not. */
const REQUEST = String.raw`printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 15`;

/** @param address where the server is to be asked; by default its own */
export async function fetchFrom(client: string, server: string, address?: string): Promise<string> {
  const to = address ?? (await podIp(server));
  return await cluster.exec('demo', client, '/bin/busybox', 'sh', '-c', `${REQUEST} ${to} 8080`);
}

export async function fetches(client: string, server: string): Promise<boolean> {
  return await fetchFrom(client, server).then(
    (body) => body.includes(`I am ${server}`),
    () => false,
  );
}

/** One request after another, each in a connection of its own, from a loop inside the pod; the first has been answered. */
export async function loop(client: string, server: string) {
  const inClient = (script: string) => cluster.exec('demo', client, '/bin/busybox', 'sh', '-c', script);
  const request = `a=$(${REQUEST} ${await podIp(server)} 8080 2>&1)`;
  const judge = `case "$a" in *'I am ${server}'*) ;; *) f=$((f+1)); echo "$(date): $a" >> /tmp/failed ;; esac`;
  await inClient('rm -f /tmp/stop /tmp/begun /tmp/failed');
  const ended = inClient(
    `n=0; f=0; until [ -e /tmp/stop ]; do ${request}; ${judge}; n=$((n+1)); echo > /tmp/begun; done; echo $n $f`,
  );
  // Who stops it hears of it.
  ended.catch(() => {});
  await eventually('the loop has begun', () => inClient('[ -e /tmp/begun ] && echo yes'), WAIT);
  return {
    /** Resolves with the number of requests. @throws when one has failed */
    async stop(): Promise<number> {
      await inClient('echo > /tmp/stop');
      const [done, failed] = (await ended).trim().split(' ').map(Number);
      const what = failed === 0 ? '' : await inClient('cat /tmp/failed');
      assert.equal(failed, 0, `${failed} of ${done} requests failed, with what came instead:\n${what}`);
      return done!;
    },
  };
}
