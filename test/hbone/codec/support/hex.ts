/** Octets from hexadecimal text; white space is ignored. */
export function octets(hex: string): Uint8Array {
  return Buffer.from(hex.replace(/\s/g, ''), 'hex');
}

export function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
