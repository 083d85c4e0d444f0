import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { freePorts } from '../support/free-ports.ts';
import { type Behaviour, makeTestCa, startTestCa, tokenUntil } from '../support/istio-ca-server.ts';
import { startIstiod } from '../support/istiod.ts';
import { asResources } from '../support/istiod-mesh.ts';
import { meshNetwork, startAgent, workload } from '../support/mesh.ts';
import { PATIENCE_MS } from '../support/patience.ts';
import { dial, exchange, listenEcho } from '../support/pod-sockets.ts';

const HOUR = 3_600_000;
const UNAUTHENTICATED = 16;
const PERMISSION_DENIED = 7;

/** Of a token as of a cluster: whoever has its three parts can use it. */
function token(name: string): string {
  return `${tokenUntil(Date.now() + HOUR)}-${name}-4f1d0c9be1a7`;
}

test('neither keys nor tokens get into logs, dumps or metrics, whatever peers do with them', async (t) => {
  const network = await meshNetwork(t);
  const [client, server] = [await network.addPod('client'), await network.addPod('server')];
  await listenEcho(server, 8080);
  const folder = join(network.folder, 'control-plane');
  mkdirSync(folder);
  makeTestCa(folder);
  const keys = ['root.key', 'signer.key', 'server.key'].map((name) => readFileSync(join(folder, name), 'utf8'));
  const [first, second] = [token('first'), token('second')];
  const ofGateway = 'gateway-password-77aa1b';
  const withScheme = 'gateway-key-93c0de';
  const tokenFile = join(network.folder, 'token');
  writeFileSync(tokenFile, first);
  // Somebody has mounted the wrong file.
  const lists = join(network.folder, 'lists.pem');
  writeFileSync(lists, keys[0]!);

  const ca = await startTestCa({ folder });
  const istiod = await startIstiod();
  network.defer(() => ca.stop());
  network.defer(() => istiod.stop());
  istiod.change(asResources({ workloads: [client, server].map((pod) => workload(pod)) }));
  const repeated = (sent: string) =>
    `no: Bearer ${sent}, x-password=${ofGateway}, key ${withScheme}, ${sent.slice(0, 60)}…`;
  istiod.refuse({ code: UNAUTHENTICATED, details: repeated(first) });

  const misdeeds: Behaviour[] = [
    { kind: 'refuse', code: UNAUTHENTICATED, details: repeated(second) },
    { kind: 'refuse', code: 13, details: encodeURIComponent(repeated(second)) },
    { kind: 'raw', bytes: Buffer.from(repeated(second)) },
    { kind: 'say', chain: () => [keys[1]!, keys[0]!] },
    { kind: 'say', chain: ([leaf, signer]) => [leaf!, signer!, keys[0]!] },
    { kind: 'say', chain: ([leaf, , root]) => [leaf!, keys[1]!, root!] },
  ];
  const done: Behaviour[] = [];
  ca.behave(() => {
    const next = misdeeds.shift();
    if (next !== undefined) done.push(next);
    return next ?? { kind: 'issue' };
  });

  const ports = await freePorts(3);
  const [adminPort, statsPort, readinessPort] = ports as [number, number, number];
  const texts: string[] = [];
  const look = async (path: string, at = adminPort, method = 'GET') => {
    const answer = await fetch(`http://127.0.0.1:${at}${path}`, { method }).catch(() => null);
    const body = (await answer?.text()) ?? '';
    texts.push(body);
    return body;
  };
  const starting = startAgent({
    network,
    mesh: {},
    caDir: '',
    env: {
      XDS_ADDRESS: istiod.address,
      XDS_ROOT_CA: istiod.rootPem,
      'XDS_HEADER_X-PASSWORD': ofGateway,
      'XDS_HEADER_X-KEY': `Basic ${withScheme}`,
      CA_ADDRESS: ca.address,
      CA_ROOT_CA: ca.rootsFile,
      'CA_HEADER_X-PASSWORD': ofGateway,
      'CA_HEADER_X-KEY': `Basic ${withScheme}`,
      AUTH_TOKEN: tokenFile,
      CRL_PATH: lists,
      RUST_LOG: 'trace',
    },
    ports,
  });
  starting.catch(() => {});
  const told = async (what: RegExp) => {
    for (const end = performance.now() + PATIENCE_MS; !what.test(await look('/xds')); ) {
      assert.ok(performance.now() < end, `${what} is not told: ${texts.at(-1)}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };

  await told(/refused the token in .*no: Bearer \*\*\*/);
  writeFileSync(`${tokenFile}.new`, second);
  renameSync(`${tokenFile}.new`, tokenFile);
  istiod.refuse({ code: PERMISSION_DENIED, details: repeated(second) });
  await told(/does not let this agent have mesh state.*\*\*\*/);
  await look('/config_dump');
  istiod.refuse(null);

  const agent = await starting;
  for (const pod of [client, server]) await agent.enrol(pod);
  await agent.until(
    'served',
    async () => {
      await look('/config_dump');
      return exchange(dial(client, server.ipv4, 8080), 'hello').catch((error: Error) => error.message);
    },
    (answer) => answer === 'hello',
  );
  assert.equal(done.length, 6);
  assert.equal(ca.seen.at(-1)!.headers.authorization, `Bearer ${second}`);
  assert.equal(ca.seen.at(-1)!.headers['x-password'], ofGateway);
  await agent.line('the file of revocation lists');
  for (const path of ['/config_dump', '/xds', '/', `/explain?from=demo/client&to=${server.ipv4}:8080`, '/nothing']) {
    await look(path);
  }
  await look('/metrics', statsPort);
  await look('/healthz/ready', readinessPort);
  await look('/logging', adminPort, 'POST');
  await agent.stop();
  texts.push(agent.output());

  const all = texts.join('\n');
  for (const said of ['the CA refused the token', 'cannot be read', '(no: Bearer ***, x-password=***, key ***, ***']) {
    assert.ok(all.includes(said), `${said} was not said`);
  }
  const secrets = [
    ...[first, second].flatMap((each) => [each, ...each.split('.').slice(1)]),
    ofGateway,
    withScheme,
    ...keys.flatMap((pem) => pem.split('\n').slice(1, -2)),
    // How a P-256 key begins in PKCS#8 and in SEC 1, whosever it is.
    'MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg',
    'MHcCAQEEI',
    'PRIVATE KEY',
  ];
  for (const secret of secrets) {
    const at = all.indexOf(secret);
    assert.ok(at < 0, `${secret} is in: ${all.slice(Math.max(0, at - 200), at + 100)}`);
  }
});
