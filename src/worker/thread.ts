/** Entry of a data-plane thread: carries out what the control thread says. */
import { parentPort, workerData } from 'node:worker_threads';
import { messageOf } from '../errors.ts';
import { WindowBudget } from '../hbone/window-budget.ts';
import { createLineWriter } from '../log/line-writer.ts';
import { createLogger } from '../log/logger.ts';
import { LOG_LINES_LOST } from '../metrics/families.ts';
import { createThreadMetrics, transferListOf } from '../metrics/thread-metrics.ts';
import { DataPlane } from './data-plane.ts';
import { collectYoung } from './memory-release.ts';
import type { FromWorker, ToWorker, WorkerData } from './messages.ts';
import type { AskControl } from './plan-cache.ts';
import { TunnelAffinity } from './tunnel-affinity.ts';

const { name, index, affinity, budget, settings, revocations, logLevel, logFormat } = workerData as WorkerData;
const port = parentPort!;
const metrics = createThreadMetrics(name);
const linesLost = metrics.slot(LOG_LINES_LOST, name);
const writer = createLineWriter({ onLost: (lines) => metrics.add(linesLost, lines) });
const log = createLogger({ format: logFormat, level: logLevel, write: writer.write });
const asked = new Map<number, Parameters<AskControl>[1]>();
let nextQuestion = 1;

const plane = new DataPlane({
  thread: index,
  settings,
  budget: new WindowBudget(settings.windowBudget, budget, index - 1),
  log,
  metrics,
  askPlan(query, done) {
    const id = nextQuestion++;
    asked.set(id, done);
    send({ kind: 'ask-plan', id, query });
  },
  askCertificate: (identity) => send({ kind: 'ask-certificate', identity }),
  siblings: {
    affinity: new TunnelAffinity(affinity, index),
    passOn: (to, uid, fd, ends) => send({ kind: 'pass-on', to, uid, fd, ends }),
  },
});

port.on('message', (message: ToWorker) => {
  switch (message.kind) {
    case 'start-pod':
      answer(message.id, () => plane.startPod(message.pod, message.netns, message.state, message.counts));
      break;
    case 'stop-pod':
      answer(message.id, () => plane.stopPod(message.uid));
      break;
    case 'pod-state':
      plane.updatePod(message.uid, message.state);
      break;
    case 'certificate':
      plane.setCertificate(message.identity, message.certificate);
      break;
    case 'no-certificate':
      plane.identities.fail(message.identity, message.error);
      break;
    case 'forget-certificate':
      plane.forgetCertificate(message.identity);
      break;
    case 'revocations':
      plane.loop.setRevocations(message.lists);
      break;
    case 'plan': {
      const done = asked.get(message.id);
      asked.delete(message.id);
      done?.(message.plan, message.id);
      break;
    }
    case 'invalidate':
      plane.plans.invalidate(message.plans);
      break;
    case 'tunnel':
      plane.takeOver(message.uid, message.fd, message.ends);
      break;
    case 'report': {
      const report = metrics.report();
      port.postMessage({ kind: 'report', id: message.id, report } satisfies FromWorker, transferListOf(report));
      break;
    }
    case 'connections':
      send({ kind: 'connections', id: message.id, pods: plane.snapshot() });
      break;
    case 'unhealthy':
      send({ kind: 'unhealthy', id: message.id, endpoints: plane.unhealthyEndpoints() });
      break;
    case 'connection':
      send({ kind: 'connection', id: message.id, connection: plane.liveConnection(message.number) });
      break;
    case 'collect-young':
      collectYoung();
      break;
    case 'log-level':
      answer(message.id, () => log.setLevel(message.spec));
      break;
    case 'drain':
      plane.drain(message.deadlineMs, () => {
        plane.stop();
        metrics.close();
        writer.close();
        send({ kind: 'drained' });
        port.close();
      });
      break;
  }
});

if (revocations !== null) plane.loop.setRevocations(revocations);
send({ kind: 'ready' });

function send(message: FromWorker): void {
  port.postMessage(message);
}

function answer(id: number, act: () => void): void {
  try {
    act();
    send({ kind: 'done', id, error: '' });
  } catch (error) {
    send({ kind: 'done', id, error: messageOf(error) });
  }
}
