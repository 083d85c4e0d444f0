// Tar archives (POSIX.1-1988 ustar), the same bytes for the same entries: no owner, no time.
const BLOCK = 512;

/**
 * One entry. `path` without a leading slash; `data` of a file; `target` of a symbolic link; neither for a folder.
 *
 * @typedef {{ path: string, mode?: number, data?: Uint8Array, target?: string }} Entry
 */

/**
 * @param {Iterable<Entry>} entries
 * @returns {Buffer}
 */
export function tar(entries) {
  const blocks = [];
  for (const entry of entries) {
    blocks.push(header(entry));
    if (entry.data === undefined) continue;
    blocks.push(entry.data);
    const rest = entry.data.length % BLOCK;
    if (rest > 0) blocks.push(Buffer.alloc(BLOCK - rest));
  }
  blocks.push(Buffer.alloc(2 * BLOCK));
  return Buffer.concat(blocks);
}

function header({ path, mode, data, target }) {
  const type = data !== undefined ? '0' : target !== undefined ? '2' : '5';
  const [prefix, name] = split(type === '5' ? `${path}/` : path);
  const block = Buffer.alloc(BLOCK);
  const octal = (value, at, length) => block.write(value.toString(8).padStart(length - 1, '0'), at, 'latin1');
  block.write(name, 0);
  octal(mode ?? (type === '5' ? 0o755 : type === '2' ? 0o777 : 0o444), 100, 8);
  octal(0, 108, 8);
  octal(0, 116, 8);
  octal(data?.length ?? 0, 124, 12);
  octal(0, 136, 12);
  block.write('        ', 148);
  block.write(type, 156);
  if (target !== undefined) block.write(target, 157);
  block.write('ustar\0' + '00', 257);
  block.write(prefix, 345);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return block;
}

/** A long path is cut at a slash: up to 155 bytes before it, 100 behind. */
function split(path) {
  if (Buffer.byteLength(path) <= 100) return ['', path];
  for (let at = path.indexOf('/'); at >= 0; at = path.indexOf('/', at + 1)) {
    const [prefix, name] = [path.slice(0, at), path.slice(at + 1)];
    if (name !== '' && Buffer.byteLength(name) <= 100 && Buffer.byteLength(prefix) <= 155) return [prefix, name];
  }
  throw new Error(`a path is too long for a tar archive: ${path}`);
}
