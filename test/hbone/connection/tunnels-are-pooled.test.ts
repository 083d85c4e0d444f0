import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FrameType } from '../../../src/hbone/frames.ts';
import { ErrorCode } from '../../../src/hbone/http-error.ts';
import type { TunnelKey } from '../../../src/hbone/pool.ts';
import { frame, words } from './support/connection-under-test.ts';
import { KEY, PoolUnderTest, Tunnel } from './support/pool-under-test.ts';

test('concurrent first uses share one handshake', () => {
  const under = new PoolUnderTest();
  const requests = [under.request(), under.request()];
  assert.equal(under.dials.length, 1);
  const { connection } = under.open();
  assert.deepEqual(
    requests.map((request) => request.connection),
    [connection, connection],
  );
  assert.deepEqual(under.counted, ['miss', 'wait']);
});

test('one tunnel is dialled for every maxStreams streams that wait', () => {
  const under = new PoolUnderTest({ maxStreams: 2 });
  const requests = Array.from({ length: 5 }, () => under.request());
  assert.equal(under.dials.length, 3);
  const tunnels = [under.open(), under.open(), under.open()];
  assert.deepEqual(
    tunnels.map(({ connection }) => connection.streamCount),
    [2, 2, 1],
  );
  assert.ok(requests.every(({ stream }) => stream !== null));
});

const OTHER_KEYS: Readonly<Record<keyof TunnelKey, TunnelKey>> = {
  source: { ...KEY, source: 'spiffe://td/ns/a/sa/other' },
  expected: { ...KEY, expected: ['spiffe://td/ns/b/sa/other'] },
  ip: { ...KEY, ip: '10.0.0.2' },
  port: { ...KEY, port: 15009 },
  pod: { ...KEY, pod: 'uid-b' },
};

for (const [part, key] of Object.entries(OTHER_KEYS)) {
  test(`a tunnel is never used for another ${part}`, () => {
    const under = new PoolUnderTest();
    under.request();
    const { connection } = under.open();
    const other = under.request(key);
    assert.equal(under.dials.length, 1);
    assert.deepEqual(under.dials[0]!.key, key);
    under.open();
    assert.notEqual(other.connection, connection);
  });
}

test('a tunnel for either of two identities is not one for the first', () => {
  const under = new PoolUnderTest();
  under.request({ ...KEY, expected: ['spiffe://td/ns/b/sa/b', 'spiffe://td/ns/c/sa/c'] });
  under.open();
  assert.equal(under.request().stream, null);
});

test('a full tunnel is used again once a stream of it ends', () => {
  const under = new PoolUnderTest({ maxStreams: 2 });
  const [first] = [under.request(), under.request()];
  const tunnel = under.open();
  const third = under.request();
  assert.equal(third.stream, null);
  assert.equal(under.dials.length, 1);
  tunnel.finish(first!.stream!);
  assert.equal(third.connection, tunnel.connection);
  // What was dialled for it is there for the next ones.
  const next = under.open();
  assert.equal(under.request().connection, next.connection);
});

test('the fullest tunnel is filled first, so that the others can become idle', () => {
  const under = new PoolUnderTest({ maxStreams: 3 });
  const requests = Array.from({ length: 4 }, () => under.request());
  const [full, other] = [under.open(), under.open()];
  full.finish(requests[0]!.stream!);
  assert.equal(under.request().connection, full.connection);
  assert.equal(under.request().connection, other.connection);
});

test('a failed handshake fails those who waited for it, and the next one dials anew', () => {
  const under = new PoolUnderTest();
  const requests = [under.request(), under.request()];
  under.fail();
  assert.deepEqual(
    requests.map(({ error }) => error?.code),
    ['ECONNREFUSED', 'ECONNREFUSED'],
  );
  under.request();
  assert.equal(under.dials.length, 1);
});

test('of several handshakes one that fails takes only as many with it as it would have served', () => {
  const under = new PoolUnderTest({ maxStreams: 2 });
  const requests = Array.from({ length: 3 }, () => under.request());
  under.fail();
  assert.deepEqual(
    requests.map(({ error }) => error !== null),
    [true, true, false],
  );
  under.open();
  assert.notEqual(requests[2]!.stream, null);
});

test('RFC 9113 §5.1.2: when the peer takes fewer streams than expected, more tunnels are opened', () => {
  const under = new PoolUnderTest({ maxStreams: 100 });
  const requests = Array.from({ length: 3 }, () => under.request());
  const tunnel = under.openLimited(1);
  assert.equal(tunnel.connection.streamCount, 1);
  assert.equal(under.dials.length, 1);
  under.openLimited(5);
  assert.ok(requests.every(({ stream }) => stream !== null));
});

test('RFC 9113 §8.7: a stream that the peer did not take hears that it may be sent again', () => {
  for (const refusal of [
    frame(FrameType.RST_STREAM, 0, 1, words(ErrorCode.REFUSED_STREAM)),
    frame(FrameType.GOAWAY, 0, 0, words(0, ErrorCode.NO_ERROR)),
  ]) {
    const under = new PoolUnderTest({ maxStreams: 1 });
    const request = under.request();
    const tunnel = under.openLimited(1);
    tunnel.receive(refusal);
    assert.equal(request.reset, 'unprocessed');
  }
});

test('RFC 9113 §6.8: a tunnel whose peer goes away takes no new streams and keeps those it has', () => {
  const under = new PoolUnderTest();
  const request = under.request();
  const tunnel = under.open();
  tunnel.receive(frame(FrameType.GOAWAY, 0, 0, words(1, ErrorCode.NO_ERROR)));
  assert.equal(request.reset, '');
  assert.equal(under.request().stream, null);
  assert.equal(under.dials.length, 1);
  // It is still looked after: PINGs, metrics, the end of its pod.
  assert.deepEqual([...under.pool.connections()], [tunnel.connection]);
  tunnel.finish(request.stream!);
  assert.equal(tunnel.transport.closed, true);
  assert.deepEqual([...under.pool.connections()], []);
});

test('an idle tunnel is closed after its time, one with a stream is not', () => {
  const under = new PoolUnderTest({ maxStreams: 1, idleTimeout: 60_000 });
  const [first] = [under.request(), under.request()];
  const [idle, busy] = [under.open(), under.open()];
  idle.finish(first!.stream!);
  under.now += 59_999;
  under.pool.tick();
  assert.equal(idle.transport.closed, false);
  under.now += 1;
  under.pool.tick();
  assert.deepEqual([idle.transport.closed, busy.transport.closed], [true, false]);
  assert.equal(under.pool.size, 1);
});

test('a tunnel that nobody wanted any more when it came becomes idle like any other', () => {
  const under = new PoolUnderTest({ idleTimeout: 60_000 });
  const gone = under.request();
  gone.isOver = true;
  const tunnel = under.open();
  assert.equal(gone.stream, null);
  under.now += 60_000;
  under.pool.tick();
  assert.equal(tunnel.transport.closed, true);
  assert.equal(under.pool.size, 0);
});

test('an old tunnel takes no new streams, keeps those it has, and is looked after until it closes', () => {
  const under = new PoolUnderTest({ maxAge: 3_600_000 });
  const request = under.request();
  const tunnel = under.open();
  under.now += 3_600_000;
  under.pool.tick();
  assert.match(tunnel.said().at(-1)!, /^GOAWAY NO_ERROR/);
  assert.equal(under.request().stream, null);
  assert.equal(request.reset, '');
  assert.deepEqual([...under.pool.connections()], [tunnel.connection]);
});

test('tunnels that were opened together do not all grow old together', () => {
  const drawn = [0, 0.5, 0.999];
  const under = new PoolUnderTest({ maxStreams: 1, maxAge: 1000, random: () => drawn.shift()! });
  for (let i = 0; i < 3; i++) under.request();
  const tunnels = [under.open(), under.open(), under.open()];
  const retired = [900, 901, 949, 950, 999, 1000].map((age) => {
    under.now = 1000 + age;
    under.pool.tick();
    return tunnels.map(({ connection }) => !connection.accepting);
  });
  assert.deepEqual(retired, [
    [false, false, false],
    [false, false, true],
    [false, false, true],
    [false, true, true],
    [false, true, true],
    [true, true, true],
  ]);
});

test('a tunnel whose handshake a new certificate overtook serves those who waited for it and nobody else', () => {
  const under = new PoolUnderTest();
  const waiting = under.request();
  under.pool.retireSource(KEY.source);
  const tunnel = under.open();
  assert.equal(waiting.connection, tunnel.connection);
  assert.equal(waiting.reset, '');
  assert.equal(tunnel.connection.accepting, false);
  assert.equal(under.request().stream, null);
  const next = under.open();
  assert.equal(next.connection.accepting, true);
});

test('destinations that come and go leave nothing behind', () => {
  const under = new PoolUnderTest({ idleTimeout: 1000 });
  for (let i = 0; i < 5000; i++) {
    const key = { ...KEY, ip: `10.${i >> 16}.${(i >> 8) & 255}.${i & 255}` };
    const request = under.request(key);
    if (i % 5 === 0) {
      under.fail();
      continue;
    }
    const tunnel = under.open();
    tunnel.finish(request.stream!);
    if (i % 5 === 1) tunnel.connection.lost('gone');
    else if (i % 5 === 2) tunnel.receive(frame(FrameType.GOAWAY, 0, 0, words(1, ErrorCode.NO_ERROR)));
  }
  assert.equal(under.pool.size, 2000);
  assert.equal(under.pool.destinations, 2000);
  under.now += 1000;
  under.pool.tick();
  assert.equal(under.pool.size, 0);
  assert.equal(under.pool.destinations, 0);
});

test('tunnels of a source whose certificate changed take no new streams, others do', () => {
  const under = new PoolUnderTest();
  const other = { ...KEY, source: 'spiffe://td/ns/a/sa/other' };
  under.request();
  under.request(other);
  const [changed, kept] = [under.open(), under.open()];
  under.pool.retireSource(KEY.source);
  assert.deepEqual([changed.connection.accepting, kept.connection.accepting], [false, true]);
  assert.equal(under.request().stream, null);
  assert.equal(under.request(other).connection, kept.connection);
});

test('a tunnel that is only looked after is given to nobody, does not grow old, and ends with its pod', () => {
  const under = new PoolUnderTest({ idleTimeout: 1000, maxAge: 1000 });
  const tunnel = new Tunnel(under.pool).established();
  under.pool.lookAfter(KEY, tunnel.connection);
  assert.deepEqual([...under.pool.connections()], [tunnel.connection]);
  assert.equal(under.request().stream, null);
  assert.equal(under.dials.length, 1);
  under.now += 10_000;
  under.pool.tick();
  assert.equal(tunnel.transport.closed, false);
  under.pool.closePod(KEY.pod, ErrorCode.NO_ERROR);
  assert.equal(tunnel.transport.closed, true);
  assert.deepEqual([...under.pool.connections()], []);
});

test('a tunnel that is retired takes no new streams and keeps those it has', () => {
  const under = new PoolUnderTest();
  const request = under.request();
  const tunnel = under.open();
  under.pool.retire(tunnel.connection);
  assert.equal(request.reset, '');
  assert.equal(under.request().stream, null);
  tunnel.finish(request.stream!);
  assert.equal(tunnel.transport.closed, true);
});

test('with a tunnel that is silent go those that are silent for as long, and none that was heard of since', () => {
  const under = new PoolUnderTest({ maxStreams: 1 });
  const requests = [under.request(), under.request(), under.request()];
  const elsewhere = under.request({ ...KEY, pod: 'uid-b' });
  const [silent, alsoSilent, heard, other] = [under.open(), under.open(), under.open(), under.open()];
  for (const tunnel of [silent, alsoSilent, heard, other]) tunnel.now += 1000;
  heard.finish(requests[2]!.stream!);
  alsoSilent.now += 500;
  under.pool.retireSilent(silent.connection, silent.connection.heardAt);
  assert.deepEqual([requests[0]!.reset, requests[1]!.reset, elsewhere.reset], ['', '', '']);
  alsoSilent.finish(requests[1]!.stream!);
  assert.deepEqual(
    [silent, alsoSilent, heard, other].map(({ connection }) => connection.accepting),
    [false, false, true, true],
  );
  assert.equal(alsoSilent.transport.closed, true);
  assert.equal(under.request().connection, heard.connection);
  assert.equal(under.request().stream, null);
  // Again, when the group has gone meanwhile.
  under.pool.retireSilent(silent.connection, silent.connection.heardAt);
  under.pool.retireSilent(alsoSilent.connection, alsoSilent.connection.heardAt);
  assert.equal(silent.transport.closed, false);
});

test('the end of a pod ends its tunnels at once: in use, retired, being opened, waited for', () => {
  const under = new PoolUnderTest({ maxStreams: 1 });
  const retiring = under.request();
  const retired = under.open();
  retired.receive(frame(FrameType.GOAWAY, 0, 0, words(1, ErrorCode.NO_ERROR)));
  const using = under.request();
  const used = under.open();
  const waiting = under.request();
  const elsewhere = under.request({ ...KEY, pod: 'uid-b' });
  under.pool.closePod(KEY.pod, ErrorCode.NO_ERROR);
  assert.deepEqual([retiring.reset, using.reset], ['processed', 'processed']);
  assert.equal(waiting.error?.code, 'POOL_DRAINING');
  assert.deepEqual([retired.transport.closed, used.transport.closed], [true, true]);
  const late = under.open();
  assert.equal(late.transport.closed, true);
  assert.equal(under.pool.size, 0);
  under.open();
  assert.notEqual(elsewhere.stream, null);
  // A pod of the same uid that comes back starts with nothing of this.
  assert.equal(under.request().stream, null);
  assert.equal(under.dials.length, 1);
});
