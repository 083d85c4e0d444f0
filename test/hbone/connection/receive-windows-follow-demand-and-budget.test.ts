import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FrameFlag, FrameType } from '../../../src/hbone/frames.ts';
import { ErrorCode } from '../../../src/hbone/http-error.ts';
import { sharedBudget, WindowBudget } from '../../../src/hbone/window-budget.ts';
import { ConnectionUnderTest, connectFrame, frame } from './support/connection-under-test.ts';

const KB = 1024;
const MB = 1024 * KB;
const ACK = frame(FrameType.SETTINGS, FrameFlag.ACK, 0);

/** A server and a stream of it on which data comes, is read at once, and takes `roundTrip` ms for each window. */
function transfer(roundTrip: number, total: number): number {
  const server = new ConnectionUnderTest('server', { initialWindow: 64 * KB, maxWindow: 4 * MB });
  server.now += roundTrip;
  server.established().receive(connectFrame(1));
  const { stream } = server.requests[0]!;
  for (let moved = 0; moved < total; ) {
    server.now += roundTrip;
    for (const { type, flags, payload } of server.frames()) {
      if (type === FrameType.PING && flags === 0) server.receive(frame(FrameType.PING, FrameFlag.ACK, 0, payload));
    }
    const window = stream.receiveWindow;
    for (let left = window; left > 0; left -= 16 * KB) {
      server.receive(frame(FrameType.DATA, 0, 1, Buffer.alloc(Math.min(16 * KB, left))));
    }
    moved += window;
  }
  return stream.windowSize;
}

test('windows grow as far as the bandwidth-delay product asks for, measured by PING', () => {
  // Near: 64 KB each ms are enough to grow until a window lasts longer than a node may be busy.
  assert.equal(transfer(1, 1 * MB), 128 * KB);
  assert.equal(transfer(1, 64 * MB), 4 * MB);
  // Far: a full window each 80 ms.
  assert.equal(transfer(80, 64 * MB), 4 * MB);
});

test('a window does not grow on the strength of what the buffers of a stopped reader take', () => {
  assert.equal(transfer(1, 2 * MB), 256 * KB);
});

test('a stream that needs four round trips and more for a window keeps the one it has', () => {
  const server = new ConnectionUnderTest('server', { initialWindow: 64 * KB, maxWindow: 4 * MB }).established();
  server.receive(connectFrame(1));
  for (let i = 0; i < 1000; i++) {
    server.now += 6;
    server.receive(frame(FrameType.DATA, 0, 1, Buffer.alloc(16 * KB)));
    for (const { type, flags, payload } of server.frames()) {
      if (type === FrameType.PING && flags === 0) server.receive(frame(FrameType.PING, FrameFlag.ACK, 0, payload));
    }
  }
  assert.equal(server.requests[0]!.stream.windowSize, 64 * KB);
});

test('one budget holds for all threads of a process', () => {
  const cells = sharedBudget(2);
  const [first, second] = [new WindowBudget(100 * KB, cells, 0), new WindowBudget(100 * KB, cells, 1)];
  assert.equal(first.take(60 * KB), true);
  assert.equal(second.take(60 * KB), false);
  assert.equal(second.take(40 * KB), true);
  assert.deepEqual([first.total, second.total], [100 * KB, 100 * KB]);
  // The second thread has crashed; what it held is free once it is replaced.
  const successor = new WindowBudget(100 * KB, cells, 1);
  assert.deepEqual([successor.used, successor.total], [0, 60 * KB]);
  assert.equal(successor.take(40 * KB), true);
});

test('the fuller the budget, the smaller the windows that new connections announce', () => {
  const rows: [share: number, announced: number][] = [
    [0, 256 * KB],
    [0.3, 64 * KB],
    [0.6, 16 * KB],
    [0.9, 4 * KB],
    [2, 4 * KB],
  ];
  for (const [share, announced] of rows) {
    const budget = new WindowBudget(10 * MB);
    budget.reserve(share * budget.limit);
    const server = new ConnectionUnderTest('server', { budget, initialWindow: 256 * KB });
    assert.ok(server.said()[0]!.includes(` 4=${announced} `), `${share}`);
  }
});

for (const role of ['server', 'client'] as const) {
  test(`RFC 9113 §6.9.2: the streams of a ${role} start smaller when the budget gets tight, and larger again`, () => {
    const budget = new WindowBudget(10 * MB);
    const under = new ConnectionUnderTest(role, { budget, initialWindow: 256 * KB }).established();
    under.reads = false;
    const open = (id: number) => {
      if (role === 'client') return under.open().stream;
      under.receive(connectFrame(id));
      return under.requests.at(-1)!.stream;
    };
    const first = open(1);
    assert.deepEqual([first.windowSize, budget.used], [256 * KB, 256 * KB]);
    budget.reserve(3 * MB);
    under.frames();
    const second = open(3);
    assert.deepEqual(
      under.said().filter((text) => !text.startsWith('HEADERS')),
      ['SETTINGS 4=65536'],
    );
    // Until the peer has acknowledged them it may use the larger window.
    assert.deepEqual([first.receiveWindow, second.receiveWindow], [256 * KB, 256 * KB]);
    open(5);
    assert.deepEqual(
      under.said().filter((text) => !text.startsWith('HEADERS')),
      [],
      'one at a time',
    );
    under.receive(ACK);
    assert.deepEqual([first.receiveWindow, second.receiveWindow, open(7).receiveWindow], Array(3).fill(64 * KB));
    assert.equal(budget.used, 3 * MB + 4 * 64 * KB);
    budget.giveBack(3 * MB);
    under.frames();
    under.connection.keepAlive(10_000, 20_000);
    assert.deepEqual(under.said(), ['SETTINGS 4=262144']);
    // A larger window can be used from when the peer knows of it.
    assert.deepEqual([first.receiveWindow, open(9).receiveWindow], [256 * KB, 256 * KB]);
    under.receive(ACK);
    assert.equal(first.receiveWindow, 256 * KB);
    under.connection.lost('over');
    assert.equal(budget.used, 0);
  });
}

test('a stream with credit that is held back keeps its window, so that it does not wait for ever', () => {
  const budget = new WindowBudget(10 * MB);
  const server = new ConnectionUnderTest('server', { budget, initialWindow: 256 * KB }).established();
  server.reads = false;
  server.receive(connectFrame(1), connectFrame(3));
  const [held, idle] = server.requests.map(({ stream }) => stream);
  // Less than a quarter of the window: nobody returns credit for it yet.
  server.receive(frame(FrameType.DATA, 0, 1, Buffer.alloc(60 * KB)));
  budget.reserve(3 * MB);
  server.frames();
  server.receive(connectFrame(5), ACK);
  assert.deepEqual(server.said(), ['SETTINGS 4=65536', `WINDOW_UPDATE 1 +${192 * KB}`]);
  assert.deepEqual([held!.windowSize, held!.receiveWindow], [256 * KB, 196 * KB]);
  assert.deepEqual([idle!.windowSize, idle!.receiveWindow], [64 * KB, 64 * KB]);
  server.connection.lost('over');
  assert.equal(budget.used, 3 * MB);
});

for (const often of ['never', 'now and then'] as const) {
  test(`windows that shrink and grow, and credit that comes back ${often}, keep a window within its limits`, () => {
    const budget = new WindowBudget(10 * MB);
    const options = { budget, initialWindow: 256 * KB, maxWindow: 512 * KB };
    const server = new ConnectionUnderTest('server', options).established();
    server.reads = false;
    server.receive(connectFrame(1));
    const { stream } = server.requests[0]!;
    server.receive(frame(FrameType.DATA, 0, 1, Buffer.alloc(60 * KB)));
    // As the peer sees it: what we say is all that it knows.
    let announced = 256 * KB;
    let window = 196 * KB;
    const hear = () => {
      for (const { type, flags, streamId, payload } of server.frames()) {
        if (type === FrameType.WINDOW_UPDATE && streamId === 1) window += payload.readUInt32BE(0);
        if (type !== FrameType.SETTINGS || (flags & FrameFlag.ACK) !== 0) continue;
        window += payload.readUInt32BE(2) - announced;
        announced = payload.readUInt32BE(2);
        server.receive(ACK);
      }
    };
    hear();
    let left = 60 * KB;
    for (let cycle = 1; cycle <= 12; cycle++) {
      budget.reserve(3 * MB);
      server.receive(connectFrame(2 * cycle + 1));
      hear();
      assert.equal(announced, 64 * KB);
      if (often === 'now and then') {
        stream.credit(4 * KB);
        left -= 4 * KB;
      }
      budget.giveBack(3 * MB);
      server.requests.at(-1)!.stream.reset(ErrorCode.CANCEL);
      server.connection.keepAlive(10_000, 20_000);
      hear();
      assert.equal(announced, 256 * KB);
      assert.equal(stream.windowSize, 256 * KB);
      assert.equal(window, stream.receiveWindow);
      assert.ok(window <= 512 * KB, `cycle ${cycle}: the peer may send ${window}`);
      assert.equal(budget.used, 256 * KB);
    }
    stream.credit(left);
    // What is still too much goes with the next credit.
    while (window > 16 * KB) {
      server.receive(frame(FrameType.DATA, 0, 1, Buffer.alloc(16 * KB)));
      window -= 16 * KB;
    }
    stream.credit(stream.uncredited);
    hear();
    assert.deepEqual([window, stream.receiveWindow, stream.windowSize], Array(3).fill(256 * KB));
    server.connection.lost('over');
    assert.equal(budget.used, 0);
  });
}

test('a window that has grown as far as it may does not grow with the first windows of streams', () => {
  const budget = new WindowBudget(10 * MB);
  const options = { budget, initialWindow: 256 * KB, maxWindow: 512 * KB };
  const server = new ConnectionUnderTest('server', options).established();
  server.receive(connectFrame(1));
  const { stream } = server.requests[0]!;
  const grow = () => {
    for (let i = 0; i < 2000 && stream.windowSize < 512 * KB; i++)
      server.receive(frame(FrameType.DATA, 0, 1, Buffer.alloc(16 * KB)));
  };
  grow();
  budget.reserve(3 * MB);
  server.receive(connectFrame(3), ACK);
  budget.giveBack(3 * MB);
  grow();
  assert.equal(stream.windowSize, 512 * KB);
  server.connection.keepAlive(10_000, 20_000);
  assert.equal(stream.windowSize, 512 * KB);
});

test('windows grow again only when that does not fill the budget at once', () => {
  const budget = new WindowBudget(16 * MB);
  const server = new ConnectionUnderTest('server', { budget, initialWindow: 256 * KB }).established();
  // Idle streams take a quarter of the budget.
  for (let i = 0; i < 17; i++) server.receive(connectFrame(2 * i + 1));
  server.receive(ACK);
  assert.equal(budget.used, 17 * 64 * KB);
  server.frames();
  for (let second = 0; second < 5; second++) {
    server.connection.keepAlive(10_000, 20_000);
    assert.deepEqual(server.said(), []);
  }
  // Much less pressure all at once still opens them step by step.
  budget.reserve(8 * MB);
  server.receive(connectFrame(101), ACK);
  budget.giveBack(8 * MB);
  for (let i = 0; i < 13; i++) server.requests[i]!.stream.reset(ErrorCode.CANCEL);
  const steps: string[] = [];
  for (let second = 0; second < 5; second++) {
    server.frames();
    server.connection.keepAlive(10_000, 20_000);
    steps.push(...server.said());
    server.receive(ACK);
  }
  assert.deepEqual(steps, [`SETTINGS 4=${64 * KB}`, `SETTINGS 4=${256 * KB}`]);
});

test('credit for padding comes back with the next credit, however little it is', () => {
  const server = new ConnectionUnderTest('server').established();
  server.reads = false;
  server.receive(connectFrame(1));
  const { stream } = server.requests[0]!;
  const payload = Buffer.concat([Buffer.from([100]), Buffer.alloc(110)]);
  server.receive(frame(FrameType.DATA, FrameFlag.PADDED, 1, payload));
  stream.credit(10);
  assert.deepEqual(server.said(), ['WINDOW_UPDATE 1 +111']);
  assert.equal(stream.receiveWindow, stream.windowSize);
});

test('what a stream has grown to and does not use goes back when the budget is tight', () => {
  const budget = new WindowBudget(16 * MB);
  const server = new ConnectionUnderTest('server', { budget, initialWindow: 64 * KB, maxWindow: 2 * MB }).established();
  server.receive(connectFrame(1));
  const { stream } = server.requests[0]!;
  const send = () => {
    for (let left = stream.receiveWindow; left > 0; left -= 16 * KB)
      server.receive(frame(FrameType.DATA, 0, 1, Buffer.alloc(Math.min(left, 16 * KB))));
  };
  while (stream.windowSize < 2 * MB) send();
  budget.reserve(6 * MB);
  for (let i = 0; i < 400 && stream.windowSize > 64 * KB; i++) {
    server.now += 2000;
    send();
  }
  assert.ok(stream.windowSize <= 64 * KB, `${stream.windowSize}`);
  assert.ok(stream.receiveWindow <= stream.windowSize);
});
