/** Not a test: a thread, or process, full of traffic that ends in the way it is told. */
import { isMainThread, parentPort, workerData } from 'node:worker_threads';
import { ChannelLoop, NO_LIMIT } from '../../native/channel.ts';
import { createAuthority } from './authority.ts';
import { connectedPair, pattern } from './side.ts';

type How = 'run' | 'exit' | 'throw' | 'stop';
const how = isMainThread ? (process.argv[2] as How) : (workerData as { how: How }).how;

const loop = new ChannelLoop((error) => {
  throw error;
});
const authority = createAuthority();
const identity = 'spiffe://cluster.local/ns/default/sa/busy';
const context = loop.newTlsContext(authority.material({ uris: [identity] }));

let reads = 0;
for (let i = 0; i < 16; i++) {
  const { client, server } = await connectedPair(loop);
  if (i % 2 === 0) {
    loop.startTls(server.channel, context, 'server', [], 'cluster.local');
    loop.startTls(client.channel, context, 'client', [identity], '');
    await Promise.all([client.told('secured'), server.told('secured')]);
  }
  client.send(pattern(10_000));
  for (const side of [client, server]) {
    side.data = (offset, length) => {
      if (++reads === 1000 && !isMainThread) parentPort!.postMessage('busy');
      if (reads > 1000 && how === 'exit') process.exit(3);
      if (reads > 1000 && how === 'throw') throw new Error('thrown in data');
      if (reads > 1000 && how === 'stop') loop.stop();
      // Calls that make objects, as they could be interrupted in them.
      loop.peer(side.channel);
      loop.tcpInfo(side.channel);
      loop.write(side.channel, offset, length);
      return NO_LIMIT;
    };
    side.resume();
  }
}
