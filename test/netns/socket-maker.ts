import { readlinkSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { closeFd, listenTcp, OWN_NETNS } from '../../native/netns.ts';
import { plainListener } from '../support/tcp.ts';

const { netns, rounds } = workerData as { netns: number; rounds: number };
const exclusive = { ...plainListener, reusePort: false };
const home = readlinkSync('/proc/thread-self/ns/net');
let strayed = 0;
for (let round = 0; round < rounds; round++) {
  closeFd(listenTcp(netns, '::', 15001, exclusive).fd);
  closeFd(listenTcp(OWN_NETNS, '127.0.0.1', 0, exclusive).fd);
  if (readlinkSync('/proc/thread-self/ns/net') !== home) strayed++;
}
parentPort!.postMessage({ strayed });
