import {
  DEFAULT_HEADER_TABLE_SIZE,
  DEFAULT_WINDOW_SIZE,
  MAX_MAX_FRAME_SIZE,
  MAX_WINDOW_SIZE,
  MIN_MAX_FRAME_SIZE,
  readUint16,
  readUint32,
  SettingId,
} from './frames.ts';
import { connectionError } from './http-error.ts';
import type { Http2Options } from './http2.ts';

/** What one side has told about itself (RFC 9113 §6.5.2). */
export interface Settings {
  headerTableSize: number;
  maxConcurrentStreams: number;
  initialWindowSize: number;
  maxFrameSize: number;
  maxHeaderListSize: number;
}

/** What holds for a peer before its SETTINGS arrive. `maxConcurrentStreams` is then unlimited; a pool assumes less. */
export function defaultSettings(): Settings {
  return {
    headerTableSize: DEFAULT_HEADER_TABLE_SIZE,
    maxConcurrentStreams: 0xffffffff,
    initialWindowSize: DEFAULT_WINDOW_SIZE,
    maxFrameSize: MIN_MAX_FRAME_SIZE,
    maxHeaderListSize: 0xffffffff,
  };
}

/** What happens when a value changes. */
export interface SettingsEffects {
  /** Told for every entry: the smallest of several must be heeded (RFC 7541 §4.2). */
  headerTableSize(size: number): void;
  /** By how much the window of every open stream changes (RFC 9113 §6.9.2). */
  initialWindowSize(change: number): void;
}

/** Entries of one frame. Each may touch every stream; no peer has use for more (nghttp2 takes 32). */
const MAX_ENTRIES = 32;

/**
 * Applies the payload of a SETTINGS frame of a peer in `role`. Every entry takes effect, in their order; unknown ones are
 * ignored (RFC 9113 §6.5.2, §6.5.3).
 */
export function applySettings(
  settings: Settings,
  role: Http2Options['role'],
  bytes: Uint8Array,
  offset: number,
  length: number,
  effects: SettingsEffects,
): void {
  if (length > MAX_ENTRIES * 6) {
    throw connectionError('ENHANCE_YOUR_CALM', `SETTINGS with ${length / 6} entries`, 'settings-flood');
  }
  for (let at = offset; at < offset + length; at += 6) {
    const value = readUint32(bytes, at + 2);
    switch (readUint16(bytes, at)) {
      case SettingId.HEADER_TABLE_SIZE:
        settings.headerTableSize = value;
        effects.headerTableSize(value);
        break;
      case SettingId.ENABLE_PUSH:
        // A server has nothing to enable.
        if (value > 1 || (value === 1 && role === 'server')) {
          throw connectionError('PROTOCOL_ERROR', `SETTINGS_ENABLE_PUSH of ${value}`);
        }
        break;
      case SettingId.MAX_CONCURRENT_STREAMS:
        settings.maxConcurrentStreams = value;
        break;
      case SettingId.INITIAL_WINDOW_SIZE: {
        if (value > MAX_WINDOW_SIZE)
          throw connectionError('FLOW_CONTROL_ERROR', `SETTINGS_INITIAL_WINDOW_SIZE of ${value}`);
        const change = value - settings.initialWindowSize;
        settings.initialWindowSize = value;
        if (change !== 0) effects.initialWindowSize(change);
        break;
      }
      case SettingId.MAX_FRAME_SIZE:
        if (value < MIN_MAX_FRAME_SIZE || value > MAX_MAX_FRAME_SIZE) {
          throw connectionError('PROTOCOL_ERROR', `SETTINGS_MAX_FRAME_SIZE of ${value}`);
        }
        settings.maxFrameSize = value;
        break;
      case SettingId.MAX_HEADER_LIST_SIZE:
        settings.maxHeaderListSize = value;
        break;
    }
  }
}
