/**
 * Hands finished log lines to a descriptor that all threads of the process write to at the same time.
 *
 * No lock and no writer thread: every thread collects the lines of one turn of its loop and hands them over in write(2)
 * calls of whole lines and at most PIPE_BUF bytes, which a pipe takes whole or not at all (pipe(7)); terminals, files and
 * stream sockets serialise the calls. So lines never interleave, also not with those of other processes.
 *
 * A pipe is opened anew without blocking mode where the kernel permits, so that a log reader that stalls does not stop
 * the traffic: lines wait, in order, and the thread blocks only once the backlog is full. Nothing is dropped while the
 * reader lives (spec §13.1). An access line costs 2.5 to 3.5 µs of CPU from record to pipe; sonic-boom, which would also
 * have to be kept to PIPE_BUF and blocks for 100 ms at a full pipe, 3 to 4 µs and 4 MB of memory.
 */
import { closeSync, constants, fstatSync, openSync, writeSync } from 'node:fs';
import { MAX_LINE_BYTES } from './line.ts';

export interface LineWriter {
  /** Takes a line with its line feed. Blocks only when the backlog is full. */
  write(line: string): void;
  /** Hands over everything, waiting for the reader up to `timeoutMs`. False when lines remain. */
  flush(timeoutMs: number): boolean;
  /** Flushes up to a second and releases what the writer opened. */
  close(): void;
}

/** About 10 000 access log lines per thread, the incumbent's bound. */
const MAX_BACKLOG_BYTES = 6 * 1024 * 1024;
/** A stalled reader is asked again after this time. */
const RETRY_MS = 5;
/** How long an ending thread waits for a stalled reader. */
const EXIT_FLUSH_MS = 1000;

export interface LineWriterOptions {
  /** Descriptor, 1 (stdout) by default. */
  fd?: number;
  maxBacklogBytes?: number;
  /** Told how many lines could not be written because the descriptor failed (reader gone, disk full). */
  onLost?: (lines: number) => void;
}

/** Flushes when its thread exits. */
export function createLineWriter(options: LineWriterOptions = {}): LineWriter {
  const maxBacklogBytes = options.maxBacklogBytes ?? MAX_BACKLOG_BYTES;
  const onLost = options.onLost ?? (() => {});
  const output = openOutput(options.fd ?? 1);
  const batch = Buffer.allocUnsafe(MAX_LINE_BYTES);
  let used = 0;
  let turnEnd: NodeJS.Immediate | null = null;
  /** What the reader has not taken yet, oldest first. */
  let backlog: Buffer[] = [];
  let backlogBytes = 0;
  let retry: NodeJS.Timeout | null = null;

  function write(line: string): void {
    const space = batch.length - used;
    if (line.length * 3 > space) {
      const bytes = Buffer.byteLength(line);
      if (bytes > space) sealBatch();
      if (bytes > batch.length) {
        deliver(Buffer.from(line), bytes);
        return;
      }
    }
    used += batch.write(line, used);
    turnEnd ??= setImmediate(endTurn);
  }

  function endTurn(): void {
    turnEnd = null;
    sealBatch();
  }

  function sealBatch(): void {
    const length = used;
    used = 0;
    if (length > 0) deliver(batch, length);
  }

  /** Writes the first `length` bytes, which are whole lines, or keeps a copy for later. */
  function deliver(bytes: Buffer, length: number): void {
    const written = backlog.length === 0 ? tryWrite(bytes, length) : 0;
    if (written === length) return;
    backlog.push(Buffer.from(bytes.subarray(written, length)));
    backlogBytes += length - written;
    while (backlogBytes > maxBacklogBytes && !drainBacklog()) pause();
    if (backlog.length > 0) retry ??= setTimeout(onRetry, RETRY_MS).unref();
  }

  function onRetry(): void {
    retry = null;
    if (!drainBacklog()) retry = setTimeout(onRetry, RETRY_MS).unref();
  }

  /** True when nothing is left. */
  function drainBacklog(): boolean {
    let done = 0;
    for (const chunk of backlog) {
      const written = tryWrite(chunk, chunk.length);
      backlogBytes -= written;
      if (written < chunk.length) {
        backlog[done] = chunk.subarray(written);
        break;
      }
      done++;
    }
    if (done > 0) backlog = backlog.slice(done);
    return backlog.length === 0;
  }

  /** Bytes written or given up: all of them, or fewer when the reader is behind. */
  function tryWrite(bytes: Buffer, length: number): number {
    let at = 0;
    while (at < length) {
      try {
        at += writeSync(output.fd, bytes, at, length - at);
      } catch (error) {
        const code = (error as NodeJS.ErrnoException).code;
        if (code === 'EAGAIN') return at;
        if (code === 'EINTR') continue;
        // There is nowhere left to report this to; the count is a metric.
        onLost(linesIn(bytes, at, length));
        return length;
      }
    }
    return length;
  }

  function flush(timeoutMs: number): boolean {
    sealBatch();
    const deadline = performance.now() + timeoutMs;
    while (!drainBacklog()) {
      if (performance.now() >= deadline) return false;
      pause();
    }
    return true;
  }

  function onExit(): void {
    flush(EXIT_FLUSH_MS);
  }

  process.once('exit', onExit);
  return {
    write,
    flush,
    close() {
      flush(EXIT_FLUSH_MS);
      process.off('exit', onExit);
      if (turnEnd) clearImmediate(turnEnd);
      if (retry) clearTimeout(retry);
      output.close();
    },
  };
}

/** The descriptor itself, or a non-blocking one of our own to the same pipe; others who use the pipe keep their mode. */
function openOutput(fd: number): { fd: number; close(): void } {
  try {
    if (fstatSync(fd).isFIFO()) {
      const own = openSync(`/proc/self/fd/${fd}`, constants.O_WRONLY | constants.O_NONBLOCK);
      return { fd: own, close: () => closeSync(own) };
    }
  } catch {
    // Not ours to open (another user's pipe), or no /proc: writes then block when the reader stalls.
  }
  return { fd, close: () => {} };
}

function linesIn(bytes: Buffer, start: number, end: number): number {
  let lines = 0;
  for (let at = bytes.indexOf(10, start); at >= 0 && at < end; at = bytes.indexOf(10, at + 1)) lines++;
  return lines;
}

const neverWoken = new Int32Array(new SharedArrayBuffer(4));

/** Blocks the thread for a moment. */
function pause(): void {
  Atomics.wait(neverWoken, 0, 0, 1);
}
