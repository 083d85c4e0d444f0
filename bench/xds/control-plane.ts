/**
 * A control plane with a generated mesh, as a process of its own: sends everything in one response, and between two SIGUSR2
 * a number of changes a second, in pushes as istiod collects them.
 *
 *     control-plane.ts <workloads> <port> <folder> <changes per second> [<policies>]
 *
 * Writes `root.pem` and `status.json`. All is encoded ahead. `acknowledgedMs` begins before the first byte is sent, when the
 * response is handed to the gRPC library, and ends with the agent's answer, which comes when all of it is in force.
 */
import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ADDRESS, startIstiod } from '../../test/support/istiod.ts';
import { changed, policies, snapshot } from './generated-mesh.ts';

/** istiod collects changes for this long (control-01 §7.6), in ms. */
const DEBOUNCE = 100;

const [workloads, port, folder, rate, policyCount = '0'] = process.argv.slice(2) as [
  string,
  string,
  string,
  string,
  string?,
];
const file = (name: string) => join(folder, name);
const message = snapshot(Number(workloads));

const istiod = await startIstiod({ port: Number(port) });
istiod.answers.addresses = false;
istiod.change({ policies: policies(Number(policyCount)) });
writeFileSync(file('root.pem'), istiod.rootPem);

const status = { bytes: message.length, sentAt: 0, acknowledgedMs: 0, pushes: 0, rejected: null as string | null };
const tell = () => {
  writeFileSync(file('status.json.new'), JSON.stringify(status));
  renameSync(file('status.json.new'), file('status.json'));
};
tell();

let pushing: NodeJS.Timeout | undefined;
let at = 0;
process.on('SIGUSR2', () => {
  if (pushing !== undefined) {
    clearInterval(pushing);
    pushing = undefined;
    tell();
    return;
  }
  pushing = setInterval(() => {
    const indexes = Array.from({ length: (Number(rate) * DEBOUNCE) / 1000 }, () => at++ % Number(workloads));
    istiod.sendRaw(changed(indexes, ++status.pushes));
  }, DEBOUNCE);
});
process.stdout.write('ready\n');

let served = -1;
let sent = 0;
setInterval(() => {
  const asking = istiod.requests.findLast(({ typeUrl, nonce }) => typeUrl === ADDRESS && nonce === '');
  if (asking === undefined || asking.stream === served) return;
  served = asking.stream;
  sent = performance.now();
  status.sentAt = Date.now();
  istiod.sendRaw(message);
}, 5);
setInterval(() => {
  const answer = istiod.requests.find(({ stream, nonce }) => stream === served && nonce === 'snapshot');
  if (answer === undefined || sent === 0) return;
  status.acknowledgedMs = performance.now() - sent;
  status.rejected = answer.error;
  sent = 0;
  tell();
}, 5);
