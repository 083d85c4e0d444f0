import type { Setting } from '../setting.ts';
import { boolean, byteSize, duration, integer } from '../values.ts';

export const tunnelsSettings = {
  poolMaxStreamsPerConnection: {
    env: 'POOL_MAX_STREAMS_PER_CONNECTION',
    type: integer(1, 65535),
    default: '100',
    unit: 'streams',
    meaning: 'Streams that one tunnel carries at a time; a further one opens another tunnel.',
    why: 'Bounds what shares one TCP connection; peers of this mesh accept 200.',
    dump: 'poolMaxStreamsPerConn',
  },
  poolUnusedReleaseTimeout: {
    env: 'POOL_UNUSED_RELEASE_TIMEOUT',
    type: duration('0'),
    default: '5m',
    meaning: 'How long a tunnel without streams is kept for reuse.',
    why: 'A handshake costs far more than an idle tunnel.',
  },
  tunnelMaxAge: {
    env: 'CULVERT_TUNNEL_MAX_AGE',
    type: duration('0'),
    default: '1h',
    meaning:
      'Age at which a tunnel, or up to a tenth before, takes no new streams; it closes once its last one has ended. 0 is no limit.',
    why: 'Bounds how long a certificate that was replaced is in use, and spreads load again after peers changed.',
  },
  tlsHandshakeTimeout: {
    env: 'CULVERT_TLS_HANDSHAKE_TIMEOUT',
    type: duration('1ms', '1h'),
    default: '10s',
    meaning: 'Longest wait for a TLS handshake, as client and as server.',
    why: 'A peer that stops in the middle of a handshake must not hold a descriptor for ever.',
  },
  http2SettingsTimeout: {
    env: 'CULVERT_HTTP2_SETTINGS_TIMEOUT',
    type: duration('1ms', '1h'),
    default: '10s',
    meaning: 'Longest wait for a peer’s HTTP/2 preface and SETTINGS after the TLS handshake, as client and as server.',
    why: 'They are the first that a peer sends; who has not sent them by then speaks something else, or nothing.',
  },
  maxHandshakesPerPod: {
    env: 'CULVERT_MAX_HANDSHAKES_PER_POD',
    type: integer(0, 1_000_000),
    default: '1024',
    unit: 'handshakes',
    meaning:
      'TLS handshakes to one pod under way at a time in each worker thread; beyond that the oldest one is given up. 0 is no limit.',
    why: 'A crowd that starts handshakes and does not go on must not take all descriptors. Others finish in milliseconds, so the oldest are the stuck ones.',
  },
  connectResponseTimeout: {
    env: 'CULVERT_CONNECT_RESPONSE_TIMEOUT',
    type: duration('1ms', '1h'),
    default: '20s',
    meaning: 'Longest wait for the answer to a CONNECT request.',
    why: 'Longer than a peer of this mesh takes at worst: 5 s to learn about the workload and 10 s to connect to it.',
  },
  http2StreamWindow: {
    env: 'HTTP2_STREAM_WINDOW_SIZE',
    type: integer(16_384, 0x7fff_ffff),
    default: '4194304',
    unit: 'bytes',
    meaning: 'Largest receive window of one stream.',
    why: 'The most one slow reader can make the agent hold; 4 MiB is 10 Gbit/s at 3 ms.',
    dump: 'windowSize',
  },
  http2ConnectionWindow: {
    env: 'HTTP2_CONNECTION_WINDOW_SIZE',
    type: integer(65_535, 0x7fff_ffff),
    default: '16777216',
    unit: 'bytes',
    meaning: 'Receive window of a tunnel.',
    why: 'Larger than a stream’s, so that streams do not wait for each other. RFC 9113 §6.9.2 lets it only grow from 65535.',
    dump: 'connectionWindowSize',
  },
  http2FrameSize: {
    env: 'HTTP2_FRAME_SIZE',
    type: integer(16_384, 16_777_215),
    default: '1048576',
    unit: 'bytes',
    meaning: 'Largest frame that is accepted from a peer (SETTINGS_MAX_FRAME_SIZE).',
    why: 'Fewer frames per megabyte; the range is that of RFC 9113 §6.5.2.',
    dump: 'frameSize',
  },
  memoryBudget: {
    env: 'CULVERT_MEMORY_BUDGET',
    type: byteSize('1Mi', '1024Gi'),
    default: '256Mi',
    meaning:
      'What the receive windows of all streams of all threads may promise together. Windows grow with demand up to here, and start smaller the less is left.',
    why: 'Stalled readers must not decide how much memory the agent takes.',
  },
  responseBaggage: {
    env: 'ENABLE_RESPONSE_BAGGAGE',
    type: boolean,
    default: 'true',
    meaning:
      'Tell peers who the destination is in the answer to a CONNECT, and read what callers tell about themselves.',
    why: 'Telemetry for traffic across networks, where the other side’s workloads are not known here.',
    dump: 'enableEnhancedBaggage',
  },
} as const satisfies Record<string, Setting>;
