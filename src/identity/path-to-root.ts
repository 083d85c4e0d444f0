import type { X509Certificate } from 'node:crypto';

/** The certificates from `leaf` to a root, both included, by names and signatures; null when there is no such path. */
export function pathToRoot(
  leaf: X509Certificate,
  intermediates: readonly X509Certificate[],
  roots: readonly X509Certificate[],
): X509Certificate[] | null {
  const path = [leaf];
  for (let current = leaf; ; ) {
    if (roots.some(({ raw }) => raw.equals(current.raw))) return path;
    const issued = (candidate: X509Certificate) =>
      current.checkIssued(candidate) && current.verify(candidate.publicKey) && !path.includes(candidate);
    const next = roots.find(issued) ?? intermediates.find(issued);
    if (next === undefined) return null;
    path.push(next);
    current = next;
  }
}
