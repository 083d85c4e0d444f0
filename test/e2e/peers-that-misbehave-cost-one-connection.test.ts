import assert from 'node:assert/strict';
import { constants } from 'node:http2';
import { test } from 'node:test';
import { credentials } from '../support/hbone-client.ts';
import { type HboneServerBehaviour, listenHbone, type RawHeaders } from '../support/hbone-server.ts';
import { identityOf, meshNetwork, service, startAgent, workload } from '../support/mesh.ts';
import { dial, exchange, fate, listen } from '../support/pod-sockets.ts';
import { matching } from '../support/samples.ts';

test('a peer that misbehaves costs the connections through it, and the log says what it did', async (t) => {
  const network = await meshNetwork(t);
  const client = await network.addPod('client');
  const peer = await network.addPod('peer');
  const silent = await network.addPod('silent');
  const absent = await network.addPod('absent');
  const plain = await network.addPod('plain');
  const filtered = await network.addPod('filtered');
  const leaving = await network.addPod('leaving');
  const impostor = await network.addPod('impostor');
  const agent = await startAgent({
    network,
    mesh: {
      workloads: [
        workload(client, { workloadType: 'deployment', locality: { region: 'r1', zone: 'z1' } }),
        workload(peer, { services: { 'demo/peer.demo.svc.cluster.local': { 80: 8080 } } }),
        ...[silent, absent, plain, filtered, leaving, impostor].map((pod) => workload(pod)),
      ],
      services: [service('peer', '10.96.0.10', { 80: 8080 })],
    },
    env: {
      CULVERT_CONNECT_TIMEOUT: '3s',
      CULVERT_TLS_HANDSHAKE_TIMEOUT: '3s',
      CULVERT_CONNECT_RESPONSE_TIMEOUT: '3s',
    },
  });
  await agent.enrol(client);
  const own = await credentials(agent.caDir, identityOf(peer));
  const echo: HboneServerBehaviour = {
    credentials: own,
    request(stream) {
      stream.respond({ ':status': 200 });
      stream.pipe(stream);
    },
  };
  let behaviour = echo;
  await listenHbone(peer, () => behaviour);

  /** How a connection ends, and what the agent's log says of it. */
  async function attempt(ip: string): Promise<{ outcome: string; error: string; level: string; flag: string }> {
    // An earlier one may have had the same port, towards another peer.
    const before = agent.here();
    const connection = dial(client, ip, 8080);
    connection.send('hello');
    const outcome = await fate(connection);
    const source = `${client.ipv4}:${connection.localPort}`;
    const line = await agent.access(({ field }) => field('src.addr') === source, before);
    const closed = matching(await agent.metrics(), 'istio_tcp_connections_closed_total', {
      destination_workload: line.field('dst.workload'),
    });
    const flags = closed.map(({ labels }) => Object.fromEntries(labels).response_flags!);
    return { outcome, error: line.field('error'), level: line.level, flag: flags.join(' ') };
  }

  await t.test('an independent peer is served, and gets the headers of the protocol in their order', async () => {
    let headers: RawHeaders = [];
    behaviour = {
      ...echo,
      request(stream, raw) {
        headers = raw;
        echo.request!(stream, raw);
      },
    };
    assert.equal(await exchange(dial(client, '10.96.0.10', 80), 'hello'), 'hello');
    const names = headers.filter((_, index) => index % 2 === 0);
    const value = (name: string) => headers[headers.indexOf(name) + 1] ?? '';
    assert.deepEqual(names, [':method', ':authority', 'baggage', 'forwarded', 'traceparent']);
    assert.equal(value(':method'), 'CONNECT');
    assert.equal(value(':authority'), `${peer.ipv4}:8080`);
    assert.equal(
      value('baggage'),
      'k8s.cluster.name=Kubernetes,k8s.namespace.name=demo,k8s.deployment.name=client,service.name=client,' +
        'service.version=latest,cloud.region=r1,cloud.availability_zone=z1',
    );
    assert.match(
      value('forwarded'),
      new RegExp(`^for="${client.ipv4}:\\d+";host=peer\\.demo\\.svc\\.cluster\\.local$`),
    );
    assert.match(value('traceparent'), /^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/);
  });

  for (const [status, text] of [
    [401, '401 Unauthorized'],
    [404, '404 Not Found'],
    [503, '503 Service Unavailable'],
    [299, '299'],
  ] as const) {
    await t.test(`status ${status}`, async () => {
      behaviour = { ...echo, request: (stream) => stream.respond({ ':status': status }, { endStream: true }) };
      const { outcome, error, level } = await attempt(peer.ipv4);
      assert.equal(outcome, 'ECONNRESET');
      assert.equal(error, `http status: ${text}`);
      assert.equal(level, 'error');
    });
  }

  await t.test('interim answers are passed over', async () => {
    behaviour = {
      ...echo,
      request(stream, raw) {
        stream.additionalHeaders({ ':status': 103 });
        echo.request!(stream, raw);
      },
    };
    assert.equal(await exchange(dial(client, peer.ipv4, 8080), 'hello'), 'hello');
  });

  await t.test('a refused stream is tried again, and so is one that a leaving peer did not take', async () => {
    let refused = 0;
    behaviour = {
      ...echo,
      request(stream, raw) {
        if (refused++ < 3) stream.close(constants.NGHTTP2_REFUSED_STREAM);
        else echo.request!(stream, raw);
      },
    };
    assert.equal(await exchange(dial(client, peer.ipv4, 8080), 'hello'), 'hello');
    assert.equal(refused, 4);
    let left = 0;
    const departing = { ...echo, credentials: await credentials(agent.caDir, identityOf(leaving)) };
    await listenHbone(leaving, () => ({
      ...departing,
      session(session) {
        if (left++ < 4) session.goaway(constants.NGHTTP2_NO_ERROR, 0);
      },
    }));
    assert.equal(await exchange(dial(client, leaving.ipv4, 8080), 'hello'), 'hello');
    assert.equal(left, 5);
  });

  await t.test('a peer that always refuses is given up on', async () => {
    let asked = 0;
    behaviour = {
      ...echo,
      request(stream) {
        asked++;
        stream.close(constants.NGHTTP2_REFUSED_STREAM);
      },
    };
    const { outcome, error } = await attempt(peer.ipv4);
    assert.equal(outcome, 'ECONNRESET');
    assert.match(error, /^h2 failed: .*REFUSED_STREAM/);
    assert.ok(asked <= 10, `${asked} attempts`);
  });

  await t.test('a peer that does not answer the request', async () => {
    behaviour = { ...echo, request() {} };
    const { outcome, error } = await attempt(peer.ipv4);
    assert.equal(outcome, 'ECONNRESET');
    assert.match(error, /did not answer the CONNECT request in time/);
  });

  await t.test('a peer that goes away in the middle', async () => {
    behaviour = {
      ...echo,
      request(stream) {
        stream.respond({ ':status': 200 });
        stream.write('half', () => setImmediate(() => stream.session?.destroy()));
      },
    };
    const connection = dial(client, peer.ipv4, 8080);
    assert.equal(await connection.text(4), 'half');
    assert.equal(await fate(connection), 'ECONNRESET');
  });

  await t.test('trailers end the data cleanly', async () => {
    behaviour = {
      ...echo,
      request(stream) {
        stream.respond({ ':status': 200 }, { waitForTrailers: true });
        stream.on('wantTrailers', () => stream.sendTrailers({ extra: 'x' }));
        stream.end('all');
      },
    };
    const connection = dial(client, peer.ipv4, 8080);
    assert.equal((await connection.rest()).toString(), 'all');
    connection.finish();
    assert.equal(await fate(connection), 'fin');
  });

  await t.test('a peer with another identity than its workload’s', async () => {
    await listenHbone(impostor, () => echo);
    const { outcome, error, flag } = await attempt(impostor.ipv4);
    assert.equal(outcome, 'ECONNRESET');
    assert.match(error, /identity verification error: peer did not present the expected SAN/);
    assert.ok(error.includes(identityOf(peer)) && error.includes(identityOf(impostor)), error);
    assert.equal(flag, 'IDENTITY_ERROR');
  });

  await t.test('a peer that takes connections and says nothing', async () => {
    const mute = await listen(silent, 15008);
    const { outcome, error, flag } = await attempt(silent.ipv4);
    assert.equal(outcome, 'ECONNRESET');
    assert.equal(error, 'tls handshake error: the peer took too long');
    assert.equal(flag, 'TLS_FAILURE');
    mute.close();
  });

  await t.test('a peer that speaks something else', async () => {
    await listen(plain, 15008, { serve: ({ socket }) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n') });
    const { outcome, error, flag } = await attempt(plain.ipv4);
    assert.equal(outcome, 'ECONNRESET');
    assert.match(error, /^tls handshake error: the peer does not speak TLS/);
    assert.equal(flag, 'TLS_FAILURE');
  });

  await t.test('nobody listens', async () => {
    const { outcome, error, flag } = await attempt(absent.ipv4);
    assert.equal(outcome, 'ECONNRESET');
    assert.equal(error, 'connection failed: Connection refused (os error 111)');
    assert.equal(flag, 'CONNECT');
  });

  await t.test('packets are dropped on the way', async () => {
    await filtered.run(['iptables', '-A', 'INPUT', '-p', 'tcp', '--dport', '15008', '-j', 'DROP']);
    const { outcome, error, flag } = await attempt(filtered.ipv4);
    assert.equal(outcome, 'ECONNRESET');
    assert.match(error, /^connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008: /);
    assert.equal(flag, 'NETWORK_POLICY');
  });

  await t.test('afterwards all is as before', async () => {
    behaviour = echo;
    assert.equal(await exchange(dial(client, peer.ipv4, 8080), 'hello'), 'hello');
    await agent.atRest();
    assert.doesNotMatch(agent.output(), /error in the agent/);
  });
});
