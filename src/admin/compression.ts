import type { Transform } from 'node:stream';

/** Cheapest for the agent first: that one is taken when the client likes several equally. */
const ENCODINGS = ['zstd', 'br', 'gzip', 'deflate'] as const;
export type Encoding = (typeof ENCODINGS)[number];

/** The content coding the client likes best (RFC 9110 §12.5.3); null to send the body as it is. */
export function chooseEncoding(acceptEncoding: string): Encoding | null {
  const weights = new Map<string, number>();
  for (const part of acceptEncoding.split(',')) {
    const [name = '', ...parameters] = part.split(';').map((text) => text.trim().toLowerCase());
    const weight = parameters.find((parameter) => parameter.startsWith('q='));
    if (name !== '') weights.set(name, weight === undefined ? 1 : Number.parseFloat(weight.slice(2)) || 0);
  }
  let best: Encoding | null = null;
  let bestWeight = weights.get('identity') ?? 0;
  for (const encoding of ENCODINGS) {
    const weight = weights.get(encoding) ?? weights.get('*') ?? 0;
    if (weight > 0 && (best === null ? weight >= bestWeight : weight > bestWeight)) {
      best = encoding;
      bestWeight = weight;
    }
  }
  return best;
}

/** A stream that compresses. zlib is loaded when the first is made. */
export function createEncoder(encoding: Encoding): Transform {
  const zlib = process.getBuiltinModule('node:zlib');
  switch (encoding) {
    case 'zstd':
      return zlib.createZstdCompress();
    case 'br':
      // The default, 11, is meant for files that are compressed once.
      return zlib.createBrotliCompress({ params: { [zlib.constants.BROTLI_PARAM_QUALITY]: 4 } });
    case 'gzip':
      return zlib.createGzip();
    case 'deflate':
      return zlib.createDeflate();
  }
}
