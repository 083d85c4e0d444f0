/** The certificates of a PEM text, each as its own block ending in one newline; anything between them is left out. */
export function splitCertificates(pem: string): string[] {
  return (pem.match(BLOCK) ?? []).map((block) => `${block.replace(/\r\n/g, '\n')}\n`);
}

/** A certificate as PEM, lines of `width` characters (64 is RFC 7468's). */
export function certificateToPem(der: Uint8Array, width = 64): string {
  return toPem('CERTIFICATE', der, width);
}

/** DER as PEM under the label of its kind. */
export function toPem(label: string, der: Uint8Array, width = 64): string {
  const lines = Buffer.from(der)
    .toString('base64')
    .match(new RegExp(`.{1,${width}}`, 'g'));
  return `-----BEGIN ${label}-----\n${(lines ?? []).join('\n')}\n-----END ${label}-----\n`;
}

const BLOCK = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;
