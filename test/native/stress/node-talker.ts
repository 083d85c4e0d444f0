import assert from 'node:assert/strict';
import { connect as netConnect, type Socket } from 'node:net';
import { connect as tlsConnect } from 'node:tls';
import type { TestMaterial } from '../authority.ts';
import { LOCAL } from '../side.ts';
import { newSeen, type Seen } from './record.ts';
import { content, generator, greeting, type Moment, type Script } from './script.ts';
import type { Stage } from './talker.ts';

/** A client made of Node's own sockets, with the script of a Talker. */
export function nodeTalker(stage: Stage, script: Script, port: number, material: TestMaterial): Seen {
  const seen = newSeen(script.id, 'client');
  const random = generator(script.id * 2 + 54321);
  const { bytes, fate } = script.client;
  const socket = netConnect({ host: LOCAL, port, allowHalfOpen: true });
  const stream: Socket = script.tls
    ? tlsConnect({
        socket,
        ca: material.rootsPem,
        cert: material.chainPem,
        key: material.keyPem,
        ALPNProtocols: ['h2'],
        checkServerIdentity: () => undefined,
      })
    : socket;
  let ended = false;
  let greeted = false;

  const leave = (how: NonNullable<Seen['left']>, close: () => void) => {
    seen.left = how;
    stream.once('close', () => stage.left(seen));
    // Node does not survive it when a TLS socket is taken apart inside one of its own events.
    if (script.tls) setImmediate(close);
    else close();
  };
  const flushAndDestroy = () => {
    if (stream.writableFinished) stream.destroy();
    else stream.end(() => stream.destroy());
  };
  const reached = (moment: Moment) => {
    if (fate.kind === 'finish' || fate.when.at !== moment.at || seen.left !== null) return;
    if ('bytes' in moment && 'bytes' in fate.when && moment.bytes < fate.when.bytes) return;
    const giveUp = () => {
      if (seen.left !== null) return;
      if (fate.kind === 'reset') {
        leave('reset', () => {
          // Node never closes a socket that it is to reset after its own end.
          if (!socket.connecting && !seen.shut) socket.resetAndDestroy();
          stream.destroy();
        });
        return;
      }
      seen.shut = true;
      leave('closed', () => {
        if (socket.connecting) stream.destroy();
        else flushAndDestroy();
      });
    };
    if (fate.later) stage.elsewhere(giveUp);
    else giveUp();
  };
  const finishIfDone = () => {
    if (seen.left === null && ended && seen.shut) leave('finished', flushAndDestroy);
  };
  const pump = () => {
    if (seen.left !== null || seen.shut) return;
    if (!greeted) stream.write(greeting(script.id, script.mode === 'relay'));
    greeted = true;
    while (seen.sent < bytes) {
      const length = Math.min(1 + Math.floor(random() ** 4 * 50_000), bytes - seen.sent);
      const more = stream.write(content(script.id, 'client', seen.sent, length));
      seen.sent += length;
      reached({ at: 'sent', bytes: seen.sent });
      if (seen.left !== null) return;
      if (!more) {
        stream.once('drain', () => {
          reached({ at: 'drained' });
          pump();
        });
        return;
      }
      if (random() < 0.3) {
        stage.elsewhere(pump);
        return;
      }
    }
    seen.shut = true;
    stream.end();
    reached({ at: 'shutdown' });
    finishIfDone();
  };

  stream.on('data', (chunk: Buffer) => {
    const expected = content(script.id, script.mode === 'echo' ? 'client' : 'server', seen.received, chunk.length);
    assert.ok(expected.equals(chunk), `wrong bytes at ${seen.received} of ${JSON.stringify(script)}`);
    seen.received += chunk.length;
    reached({ at: 'received', bytes: seen.received });
    if (seen.left !== null || random() < 0.8) return;
    stream.pause();
    stage.elsewhere(() => stream.resume());
  });
  stream.on('end', () => {
    if (seen.left !== null) return;
    seen.told ??= 'ended';
    ended = true;
    reached({ at: 'ended' });
    finishIfDone();
  });
  const failed = (error: Error) => {
    if (seen.left !== null) return;
    seen.told ??= 'failed';
    seen.error = error.message;
    leave('failed', () => stream.destroy());
  };
  stream.on('error', failed);
  if (script.tls) socket.on('error', failed);
  socket.once('connect', () => {
    reached({ at: 'open' });
    if (!script.tls) pump();
  });
  stream.once('secureConnect', () => {
    reached({ at: 'secured' });
    pump();
  });
  reached({ at: 'connecting' });
  return seen;
}
