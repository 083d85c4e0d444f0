import assert from 'node:assert/strict';
import type { ServerHttp2Stream } from 'node:http2';
import { connect, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { ATTEMPTS_RETRIED, TUNNEL_TIMEOUTS } from '../../src/metrics/families.ts';
import type { EndpointGroup, OutboundPlan } from '../../src/routing/plan.ts';
import { freePorts } from '../support/free-ports.ts';
import {
  application,
  dial,
  IDENTITY,
  LOCALHOST,
  type PlaneUnderTest,
  POD,
  planeUnderTest,
  startPod,
  tunnelTo,
  until,
} from './support/plane-under-test.ts';
import {
  beyond,
  count,
  type ForwardPlan,
  hear,
  http2Peer,
  peer,
  tlsPeer,
  twoEndpoints,
  type Wire,
} from './support/tunnel-peers.ts';

test('an endpoint that falls silent behind its tunnel costs no request while another one lives', async (t) => {
  const rig = await planeUnderTest(t, { attemptTimeout: 1000, responseTimeout: 60_000, maxStreamsPerTunnel: 1000 });
  const answer = (name: string, stream: ServerHttp2Stream) => {
    stream.respond({ ':status': 200 });
    stream.end(name);
  };
  let isDead = false;
  const doomed = await http2Peer(t, rig, (stream, wire) => {
    if (isDead) wire.vanish();
    else answer('doomed', stream);
  });
  const alive = await http2Peer(t, rig, (stream) => answer('alive', stream));
  rig.answer = () => twoEndpoints(rig, doomed, alive);
  startPod(rig);
  const crowd = () => Promise.all(Array.from({ length: 20 }, () => hear(t, rig)));
  await until('one of them is never asked', async () => new Set((await crowd()).map(({ heard }) => heard)).size === 2);
  isDead = true;
  for (let round = 0; round < 3; round++)
    assert.deepEqual(await crowd(), Array(20).fill({ end: 'end', heard: 'alive' }));
  assert.ok(count(rig, ATTEMPTS_RETRIED, 'connect-failed') >= 1);
  assert.equal(count(rig, TUNNEL_TIMEOUTS, 'client', 'connect-response'), 0);
  const [health] = rig.plane.unhealthyEndpoints();
  assert.equal(health?.failures, 1);
  await until('the silent tunnel stays', () => [...rig.plane.pool.connections()].length === 1);
});

/** A plan with so many near endpoints, at a port of the loopback, and a far one. */
function nearAndFar(rig: PlaneUnderTest, count: number, near: number, far: number): OutboundPlan {
  const plan = twoEndpoints(rig, near, far) as ForwardPlan;
  const [first, last] = plan.groups as [EndpointGroup, EndpointGroup];
  const ips = Array.from({ length: count }, (_, index) => `127.0.1.${index + 1}`);
  return {
    ...plan,
    groups: [
      { ...first, ips, uids: ips },
      { ...last, tier: 1 },
    ],
  };
}

const outages: readonly [what: string, near: number, serve: ((socket: Socket) => void) | null][] = [
  ['refuses', 30, null],
  ['says nothing', 12, () => {}],
  ['says something else than TLS', 12, (socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n')],
];
for (const [what, near, serve] of outages) {
  test(`a near zone of ${near} that ${what} costs no connection while a far endpoint lives`, async (t) => {
    const rig = await planeUnderTest(t, { attemptTimeout: 1000, connectTimeout: 5000 });
    const far = await http2Peer(t, rig, (stream) => {
      stream.respond({ ':status': 200 });
      stream.end('far');
    });
    const dead = serve === null ? (await freePorts(1))[0]! : await peer(t, rig, serve, '0.0.0.0');
    rig.answer = () => nearAndFar(rig, near, dead, far);
    startPod(rig);
    const crowd = () => Promise.all(Array.from({ length: 12 }, () => hear(t, rig)));
    const retried = () =>
      count(rig, ATTEMPTS_RETRIED, 'tunnel-failed') + count(rig, ATTEMPTS_RETRIED, 'connect-failed');
    // Nothing is known of them yet.
    assert.deepEqual(await hear(t, rig), { end: 'end', heard: 'far' });
    await until('the near ones are asked for ever', async () => {
      const before = retried();
      assert.deepEqual(await crowd(), Array(12).fill({ end: 'end', heard: 'far' }));
      return retried() === before;
    });
  });
}

test('an endpoint that is somebody else costs no request, gets nothing of it, and is left out', async (t) => {
  const rig = await planeUnderTest(t);
  let received = 0;
  const impostor = await tlsPeer(t, rig, (socket) => socket.on('data', () => received++), `${IDENTITY}-not`);
  const alive = await http2Peer(t, rig, (stream) => {
    stream.respond({ ':status': 200 });
    stream.end('alive');
  });
  rig.answer = () => twoEndpoints(rig, impostor, alive);
  startPod(rig);
  await until('the impostor is never asked', async () => {
    const crowd = await Promise.all(Array.from({ length: 10 }, () => hear(t, rig)));
    assert.deepEqual(crowd, Array(10).fill({ end: 'end', heard: 'alive' }));
    return count(rig, ATTEMPTS_RETRIED, 'tunnel-failed') >= 1;
  });
  assert.deepEqual(
    rig.plane.unhealthyEndpoints().map(({ endpoint }) => endpoint),
    [`${LOCALHOST}:80`],
  );
  assert.equal(received, 0);
});

for (const [why, says] of [
  ['says something', true],
  ['answers a PING', false],
] as const) {
  test(`an endpoint that is slow to answer is waited for while its peer ${why}`, async (t) => {
    const rig = await planeUnderTest(t, { attemptTimeout: 1000 });
    let asked = 0;
    const slow = await http2Peer(t, rig, (stream) => {
      asked++;
      const timer = setInterval(() => says && stream.session?.ping(() => {}), 20);
      stream.on('close', () => clearInterval(timer));
      setTimeout(() => {
        stream.respond({ ':status': 200 });
        stream.end();
      }, 2500);
    });
    const [nobody] = await freePorts(1);
    rig.answer = () => twoEndpoints(rig, slow, nobody!);
    startPod(rig);
    // Those that meet the other endpoint first have none left after this one: not all of them do.
    const ends = Array.from({ length: 8 }, async () => {
      const { socket, ended } = await dial(t, rig.ports.outbound);
      socket.resume();
      return ended;
    });
    assert.deepEqual(await Promise.all(ends), Array(8).fill('end'));
    assert.equal(asked, 8);
  });
}

for (const [when, answers] of [
  ['never', false],
  ['too late', true],
] as const) {
  test(`an endpoint that answers PINGs at once but a request ${when} costs none while another one lives`, async (t) => {
    const rig = await planeUnderTest(t, { attemptTimeout: 3000, connectTimeout: 5800 });
    const busy = await http2Peer(t, rig, (stream) => {
      if (answers) setTimeout(() => stream.closed || stream.respond({ ':status': 503 }, { endStream: true }), 9000);
    });
    const alive = await http2Peer(t, rig, (stream) => {
      stream.respond({ ':status': 200 });
      stream.end('alive');
    });
    rig.answer = () => twoEndpoints(rig, busy, alive);
    startPod(rig);
    await until('the busy one is never asked', async () => {
      const crowd = await Promise.all(Array.from({ length: 20 }, () => hear(t, rig)));
      assert.deepEqual(crowd, Array(20).fill({ end: 'end', heard: 'alive' }));
      return count(rig, ATTEMPTS_RETRIED, 'no-response') > 0;
    });
    assert.deepEqual(
      rig.plane.unhealthyEndpoints().map(({ endpoint }) => endpoint),
      [`${LOCALHOST}:80`],
    );
    assert.ok([...rig.plane.pool.connections()].every(({ accepting }) => accepting));
  });
}

/** Says `slow` to each request after so many ms. */
function slowPeer(t: TestContext, rig: PlaneUnderTest, ms: number) {
  return http2Peer(t, rig, (stream) => {
    setTimeout(() => {
      if (stream.closed) return;
      stream.respond({ ':status': 200 });
      stream.end('slow');
    }, ms);
  });
}

test('endpoints that are all slower than the time for connecting are waited for while they are heard of', async (t) => {
  const rig = await planeUnderTest(t, { attemptTimeout: 1000, connectTimeout: 1500 });
  const slow = await slowPeer(t, rig, 3000);
  const plan = twoEndpoints(rig, slow, slow) as ForwardPlan;
  const [third] = (tunnelTo({ ...rig.ports, hbone: slow }, 82) as ForwardPlan).groups;
  rig.answer = () => ({ ...plan, groups: [...plan.groups, third!] });
  startPod(rig);
  assert.deepEqual(await hear(t, rig), { end: 'end', heard: 'slow' });
});

for (const reading of [1, 2, 3, 4]) {
  test(`an endpoint that is heard of is kept when the time ends at reading ${reading} of the clock`, async (t) => {
    const rig = await planeUnderTest(t, { attemptTimeout: 1000, connectTimeout: 1900 });
    const { now } = rig.plane;
    let begun = Number.POSITIVE_INFINITY;
    let readings = 0;
    let ahead = 0;
    Object.assign(rig.plane, {
      now() {
        const time = now() + ahead;
        if (ahead > 0 || time < begun + 1200 || time > begun + 1900 || ++readings < reading) return time;
        ahead = begun + 2100 - time;
        return time + ahead;
      },
    });
    const slow = await slowPeer(t, rig, 2200);
    const plan = twoEndpoints(rig, slow, slow);
    rig.answer = () => {
      begun = now();
      return plan;
    };
    startPod(rig);
    assert.deepEqual(await hear(t, rig), { end: 'end', heard: 'slow' });
  });
}

test('a short time for connecting is shared by near and far: one near endpoint that fails moves nobody away', async (t) => {
  const rig = await planeUnderTest(t, { attemptTimeout: 20_000, connectTimeout: 20_000 });
  const serving = (name: string) =>
    http2Peer(t, rig, (stream) => {
      stream.respond({ ':status': 200 });
      stream.end(name);
    });
  const near = await serving('near');
  const far = await serving('far');
  const [nobody] = await freePorts(1);
  const plan = twoEndpoints(rig, nobody!, near) as ForwardPlan;
  const [last] = (tunnelTo({ ...rig.ports, hbone: far }, 82) as ForwardPlan).groups;
  rig.answer = () => ({ ...plan, groups: [...plan.groups, { ...last!, tier: 1 }] });
  startPod(rig);
  await until('the one that fails is never asked', async () => {
    const crowd = await Promise.all(Array.from({ length: 10 }, () => hear(t, rig)));
    assert.deepEqual(crowd, Array(10).fill({ end: 'end', heard: 'near' }));
    return count(rig, ATTEMPTS_RETRIED, 'tunnel-failed') > 0;
  });
});

test('a connection whose endpoints are all silent is refused when the time for connecting is over', async (t) => {
  const rig = await planeUnderTest(t, { attemptTimeout: 1000, connectTimeout: 4000, handshakeTimeout: 60_000 });
  let taken = 0;
  const dead = await peer(t, rig, () => void taken++, '0.0.0.0');
  rig.answer = () => nearAndFar(rig, 20, dead, dead);
  startPod(rig);
  assert.equal((await hear(t, rig)).end, 'reset');
  // The first one, and another one whenever an attempt has taken its time.
  assert.ok(taken >= 2 && taken <= 5, String(taken));
  assert.match(rig.log(), /error="no connection to 127\.0\.\d+\.\d+:\d+ within 1000 ms"/);
});

const silences: readonly [string, (stream: ServerHttp2Stream, wire: Wire) => void][] = [
  ['a network gateway that falls silent', (_, wire) => wire.vanish()],
  ['a far end that says nothing beyond its gateway', (stream) => stream.respond({ ':status': 200 })],
];
for (const [what, serve] of silences) {
  test(`${what} costs no request while another one lives`, async (t) => {
    const rig = await planeUnderTest(t, { attemptTimeout: 3000, responseTimeout: 60_000, handshakeTimeout: 60_000 });
    const app = await application(t);
    app.server.on('connection', (socket) => socket.end('served'));
    rig.app = app.port;
    const deliver = rig.answer;
    const requests: ServerHttp2Stream[] = [];
    const silent = await http2Peer(t, rig, (stream, wire) => {
      requests.push(stream);
      serve(stream, wire);
    });
    const gateway = await http2Peer(t, rig, (stream) => {
      stream.respond({ ':status': 200 });
      const far = connect(rig.ports.hbone, LOCALHOST);
      far.on('error', () => {});
      stream.pipe(far).pipe(stream);
    });
    const through = (first: number, second: number) => {
      rig.answer = (query) =>
        query.kind === 'outbound' ? beyond(twoEndpoints(rig, first, second), app.port) : deliver(query);
      rig.plane.plans.forget(POD.uid);
    };
    startPod(rig);
    // The handshakes through the one that lives take their time: it is not to be left for the other meanwhile.
    through(gateway, gateway);
    assert.deepEqual(await hear(t, rig), { end: 'end', heard: 'served' });
    through(silent, gateway);
    await until('the silent one is never asked', async () => {
      const crowd = await Promise.all(Array.from({ length: 8 }, () => hear(t, rig)));
      assert.deepEqual(crowd, Array(8).fill({ end: 'end', heard: 'served' }));
      return requests.length > 0;
    });
    assert.ok(count(rig, ATTEMPTS_RETRIED, 'connect-failed') >= 1);
    assert.deepEqual(
      [
        count(rig, TUNNEL_TIMEOUTS, 'client', 'connect-response'),
        count(rig, TUNNEL_TIMEOUTS, 'client', 'tls-handshake'),
      ],
      [0, 0],
    );
    await until('handshakes stay', () => rig.plane.snapshot()[0]!.connections.length === 0);
  });
}
