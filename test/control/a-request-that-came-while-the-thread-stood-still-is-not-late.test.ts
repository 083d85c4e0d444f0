import assert from 'node:assert/strict';
import { test } from 'node:test';
import { policy, uid, workload } from '../xds/support/client-under-test.ts';
import { pathTo } from '../xds/support/path.ts';
import { inTurns } from '../xds/support/turns.ts';
import { ADDRESS, AUTHORIZATION, openPeer, startControlPlane } from './support/xds-peer.ts';

test('policies that were asked for while this thread stood still come first all the same', async (t) => {
  const control = await startControlPlane(t, {
    changes: { addresses: { [uid('a')]: workload('a') }, policies: { 'demo/p': policy('p') } },
    limits: { policiesExpectedMs: 1000 },
  });
  const path = await pathTo(t, control);
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const peer = openPeer(t, { ...control, port: path.port });
  peer.ask({ typeUrl: ADDRESS, versions: { [uid('a')]: 'stale' } });
  await inTurns('asked for', () => control.ads.clients().length === 1);
  // Nothing else is on its way.
  for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate);
  const passed = path.beforeItIsRead('server', () => t.mock.timers.tick(1000));
  peer.ask({ typeUrl: AUTHORIZATION });
  await passed;
  const responses = [await peer.take(), await peer.take()];
  assert.deepEqual(
    responses.map(({ typeUrl }) => typeUrl),
    [AUTHORIZATION, ADDRESS],
  );
});
