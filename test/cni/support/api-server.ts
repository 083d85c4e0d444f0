/** A real Kubernetes API server with its etcd, for tests of what is read from it and written to it. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:https';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { freePorts } from '../../support/free-ports.ts';
import { eventually } from './eventually.ts';

export interface ApiServer {
  readonly port: number;
  /** With `token` and `ca.crt`, as a pod has it. */
  readonly serviceAccountDir: string;
  /** Sends a request as the administrator; resolves with the answer, whatever its status. */
  call(method: string, path: string, body?: unknown): Promise<{ status: number; body: Record<string, unknown> }>;
  /** Makes the object, which must go well. */
  create(path: string, object: unknown): Promise<{ metadata: { uid: string } }>;
  /** Stops the server (SIGKILL) and starts it again on the same port. */
  restart(): Promise<void>;
  /** Freezes it: connections stay open, and nothing is answered from when this resolves. */
  freeze(): Promise<void>;
  thaw(): void;
}

const cacheFolder = join(process.env.KUBE_CACHE ?? join(homedir(), '.cache/culvert-kube'), 'bin');
const serverProgram = join(cacheFolder, 'kube-apiserver');

/** Why tests with an API server cannot run here; false when they can. For `{ skip }`. */
export const noApiServer: string | false = !existsSync(serverProgram)
  ? `there is no ${serverProgram}: npm run test:cluster builds it`
  : !existsSync('/usr/bin/etcd')
    ? 'there is no etcd (Debian: etcd-server)'
    : false;

export async function startApiServer(t: Pick<TestContext, 'after'>): Promise<ApiServer> {
  const folder = mkdtempSync(join(tmpdir(), 'culvert-api-'));
  const processes = new Set<ChildProcess>();
  t.after(async () => {
    const ended = [...processes].map((child) => new Promise((resolve) => child.once('exit', resolve)));
    for (const child of processes) child.kill('SIGKILL');
    // They write to the folder to the last moment.
    await Promise.all(ended);
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  });
  const [port, etcdPort, peerPort] = (await freePorts(3)) as [number, number, number];
  const account = join(folder, 'account');
  mkdirSync(account);
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' });
  openssl(
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', 'tls.key'],
    ...['-out', 'account/ca.crt', '-days', '2', '-subj', '/CN=test', '-addext', 'subjectAltName=IP:127.0.0.1'],
  );
  openssl('genrsa', '-out', 'sa.key', '2048');
  writeFileSync(join(account, 'token'), 'admin-token');
  writeFileSync(join(folder, 'tokens.csv'), 'admin-token,admin,admin,system:masters\n');
  run('etcd', [
    ...['--data-dir', 'etcd', '--listen-client-urls', `http://127.0.0.1:${etcdPort}`],
    ...[
      '--advertise-client-urls',
      `http://127.0.0.1:${etcdPort}`,
      '--listen-peer-urls',
      `http://127.0.0.1:${peerPort}`,
    ],
    ...['--initial-advertise-peer-urls', `http://127.0.0.1:${peerPort}`],
    ...['--initial-cluster', `default=http://127.0.0.1:${peerPort}`, '--unsafe-no-fsync'],
  ]);
  let server = startServer();
  await ready();

  const api: ApiServer = {
    port,
    serviceAccountDir: account,
    call,
    async create(path, object) {
      const { status, body } = await call('POST', path, object);
      if (status !== 201) throw new Error(`POST ${path}: ${status} ${JSON.stringify(body)}`);
      return body as { metadata: { uid: string } };
    },
    async restart() {
      const ended = new Promise((resolve) => server.once('exit', resolve));
      server.kill('SIGKILL');
      await ended;
      server = startServer();
      await ready();
    },
    async freeze() {
      server.kill('SIGSTOP');
      await eventually('every thread has stopped', () => stopped(server.pid!));
    },
    thaw: () => server.kill('SIGCONT'),
  };
  return api;

  function run(command: string, args: readonly string[]): ChildProcess {
    // It ends with this process, also when that is killed.
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', command, ...args], { cwd: folder, stdio: 'ignore' });
    processes.add(child);
    child.on('exit', () => processes.delete(child));
    return child;
  }

  function startServer(): ChildProcess {
    return run(serverProgram, [
      ...['--etcd-servers', `http://127.0.0.1:${etcdPort}`, '--secure-port', `${port}`, '--bind-address', '127.0.0.1'],
      ...['--tls-cert-file', 'account/ca.crt', '--tls-private-key-file', 'tls.key'],
      ...['--service-account-issuer', 'https://kubernetes.default.svc', '--service-account-key-file', 'sa.key'],
      ...['--service-account-signing-key-file', 'sa.key', '--service-cluster-ip-range', '10.96.0.0/16'],
      ...['--token-auth-file', 'tokens.csv', '--authorization-mode', 'RBAC', '--cert-dir', 'certs'],
      ...['--endpoint-reconciler-type', 'none', '--disable-admission-plugins', 'ServiceAccount'],
    ]);
  }

  async function ready(): Promise<void> {
    for (let attempt = 0; attempt < 600; attempt++) {
      const answer = await call('GET', '/readyz').catch(() => null);
      if (answer?.status === 200) return;
      await delay(200);
    }
    throw new Error('the API server did not become ready');
  }

  function call(method: string, path: string, body?: unknown) {
    const text = body === undefined ? '' : JSON.stringify(body);
    const type = method === 'PATCH' ? 'application/merge-patch+json' : 'application/json';
    return new Promise<{ status: number; body: Record<string, unknown> }>((resolve, reject) => {
      request(
        {
          ...{ host: '127.0.0.1', port, path, method, agent: false, timeout: 20_000 },
          ca: readFileSync(join(account, 'ca.crt')),
          headers: { authorization: 'Bearer admin-token', 'content-type': type },
        },
        (response) => {
          let answer = '';
          response.setEncoding('utf8').on('data', (chunk: string) => {
            answer += chunk;
          });
          response.on('end', () => {
            const isJson = answer.startsWith('{');
            resolve({ status: response.statusCode!, body: isJson ? JSON.parse(answer) : { text: answer } });
          });
          response.on('error', reject);
        },
      )
        .on('error', reject)
        .end(text);
    });
  }
}

/** Whether every thread of the process has stopped: a signal reaches those of other processors a moment later. */
function stopped(pid: number): boolean {
  return readdirSync(`/proc/${pid}/task`).every((task) =>
    /\) T /.test(readFileSync(`/proc/${pid}/task/${task}/stat`, 'utf8')),
  );
}
