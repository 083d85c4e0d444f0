/** Pods of busybox that ask and answer, in the namespace `demo`. */
import type { KubeObject, Node } from './cluster.ts';
import { cluster } from './running-cluster.ts';

export const STATUS = 'ambient.istio.io/redirection';
export const AMBIENT = 'istio.io/dataplane-mode=ambient';
/** How long something may take, in ms. */
export const WAIT = 60_000;

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
  const found = (await podsOf(daemonSet)).find(({ spec }) => spec.nodeName === node)!;
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

/** One request after another, each in a connection of its own, from a loop inside the pod. */
export async function loop(client: string, server: string) {
  const request = `${REQUEST} ${await podIp(server)} 8080 | grep -q 'I am ${server}'`;
  const script = `rm -f /tmp/stop; n=0; f=0; until [ -e /tmp/stop ]; do ${request} || f=$((f+1)); n=$((n+1)); done; echo $n $f`;
  const ended = cluster.exec('demo', client, '/bin/busybox', 'sh', '-c', script);
  return {
    async stop() {
      await cluster.exec('demo', client, '/bin/busybox', 'sh', '-c', 'echo > /tmp/stop');
      const [done, failed] = (await ended).trim().split(' ').map(Number);
      return { done: done!, failed: failed! };
    },
  };
}
