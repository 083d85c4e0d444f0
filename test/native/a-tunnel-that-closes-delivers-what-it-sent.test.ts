import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createAuthority } from './authority.ts';
import { CLIENT_ID, SERVER_ID, startedTlsPair } from './secure-side.ts';
import { assertLog, nextTurns, pattern, type Side, testLoop } from './side.ts';

const authority = createAuthority();
const clientMaterial = authority.material({ uris: [CLIENT_ID] });
const serverMaterial = authority.material({ uris: [SERVER_ID] });

async function secured(loop: ReturnType<typeof testLoop>): Promise<{ near: Side; far: Side }> {
  const { client, server } = await startedTlsPair(loop, clientMaterial, serverMaterial);
  await Promise.all([client.told('secured'), server.told('secured')]);
  for (const side of [client, server]) side.log.length = 0;
  return { near: server, far: client };
}

/** Sends as much as the kernel takes while nobody reads. */
async function fillKernel(near: Side): Promise<number> {
  let sent = 0;
  while (near.loop.flush(near.channel) === 0 && sent < 50_000_000) {
    near.send(pattern(100_000, sent));
    sent += 100_000;
  }
  return sent;
}

for (const when of ['before the close', 'after the close'] as const) {
  test(`all that was sent arrives, although the peer speaks ${when}`, async (t) => {
    const loop = testLoop(t);
    const { near, far } = await secured(loop);
    loop.pause(near.channel);
    loop.pause(far.channel);
    const length = await fillKernel(near);
    if (when === 'before the close') far.send('a window update');
    await nextTurns();
    assert.equal(loop.close(near.channel), false);
    // Let the queue go, so that only the kernel has the rest.
    far.resume();
    while (far.receivedLength < length) {
      if (when === 'after the close') far.send('a window update');
      const had = far.receivedLength;
      await far.until(() => far.receivedLength > had || far.log.length > 0);
      assert.deepEqual(
        far.log.filter((event) => event.startsWith('failed')),
        [],
      );
    }
    await far.told('ended');
    assert.ok(far.received.equals(pattern(length)));
    assertLog(near, []);
    loop.close(far.channel);
    await near.told('closed');
    await nextTurns();
    assert.equal(loop.size, 0);
  });
}

test('two ends that close at the same time are both done', async (t) => {
  const loop = testLoop(t);
  const { near, far } = await secured(loop);
  loop.close(near.channel);
  loop.close(far.channel);
  await Promise.all([near.told('closed'), far.told('closed')]);
  await nextTurns();
  assert.equal(loop.size, 0);
});

test('a peer that resets, or is reset, ends the wait', async (t) => {
  const loop = testLoop(t);
  const first = await secured(loop);
  assert.equal(loop.close(first.near.channel), false);
  await nextTurns();
  loop.reset(first.far.channel);
  await first.near.told('closed');
  const second = await secured(loop);
  loop.close(second.near.channel);
  loop.reset(second.near.channel);
  second.far.resume();
  await second.far.until(() => second.far.log.length > 0);
  await nextTurns();
  assertLog(second.near, []);
});
