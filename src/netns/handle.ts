import { closeFd, dupFd, inspectNetns, openNetns } from '../../native/netns.ts';
import { CulvertError } from '../errors.ts';

/**
 * An open network namespace. It lives as long as somebody holds a descriptor of it, even after the last process in it
 * has ended; so a handle has exactly one owner, who closes it.
 */
export interface NetnsHandle {
  /** Valid in every thread of the process until `close`. */
  readonly fd: number;
  /** Equal for two handles exactly when they are the same namespace. */
  readonly key: string;
  /** A second handle of the same namespace, with an owner of its own. */
  duplicate(): NetnsHandle;
  /** Harmless the second time. */
  close(): void;
}

export type NetnsErrorCode = 'NETNS_INVALID' | 'NETNS_UNAVAILABLE';

/**
 * Takes over a descriptor. When it is refused it is closed, so that the caller never has to.
 * @throws CulvertError 'NETNS_INVALID' when it is open but no network namespace, 'NETNS_UNAVAILABLE' when it cannot be used
 */
export function adoptNetns(fd: number): NetnsHandle {
  try {
    const { ino, dev } = inspectNetns(fd);
    return handleOf(fd, `${dev}:${ino}`);
  } catch (cause) {
    closeQuietly(fd);
    throw asNetnsError(cause);
  }
}

/**
 * Opens a namespace by the name of its file.
 * @throws CulvertError 'NETNS_INVALID' when the file is something else, 'NETNS_UNAVAILABLE' when it cannot be opened
 */
export function openNetnsHandle(path: string): NetnsHandle {
  try {
    return adoptNetns(openNetns(path));
  } catch (cause) {
    throw cause instanceof CulvertError ? cause : asNetnsError(cause);
  }
}

/** Closes descriptors that nobody wants, whatever they are. */
export function closeDescriptors(descriptors: readonly number[]): void {
  for (const fd of descriptors) closeQuietly(fd);
}

function handleOf(fd: number, key: string): NetnsHandle {
  let open = true;
  return {
    fd,
    key,
    duplicate() {
      if (!open) throw new CulvertError('NETNS_UNAVAILABLE', `network namespace ${key} is closed`);
      return handleOf(dupFd(fd), key);
    },
    close() {
      if (!open) return;
      open = false;
      closeFd(fd);
    },
  };
}

function closeQuietly(fd: number): void {
  try {
    closeFd(fd);
  } catch {
    // It was not open: that is what the caller is about to hear.
  }
}

function asNetnsError(cause: unknown): CulvertError<NetnsErrorCode> {
  const { code, message } = cause as Error & { code?: string };
  return new CulvertError(code === 'NOT_A_NETNS' ? 'NETNS_INVALID' : 'NETNS_UNAVAILABLE', message, { cause });
}
