/** Metrics of the CA, by istiod's names; those of `culvert_…` are its own. */
import { X509Certificate } from 'node:crypto';
import { splitCertificates } from '../../identity/pem.ts';
import type { Family, Sample } from '../../metrics/family.ts';
import type { Registry } from '../../metrics/registry.ts';
import type { CaSource } from './ca-source.ts';

export const CA = {
  requests: counter('citadel_server_csr_count', 'Requests for certificates (unstable).'),
  unauthenticated: counter(
    'citadel_server_authentication_failure_count',
    'Requests for certificates whose caller is not known (unstable).',
  ),
  unreadable: counter(
    'citadel_server_csr_parsing_err_count',
    'Requests for certificates that cannot be read (unstable).',
  ),
  signFailures: counter(
    'citadel_server_csr_sign_err_count',
    'Requests for certificates that could not be signed (unstable).',
    ['error'],
  ),
  issued: counter('citadel_server_success_cert_issuance_count', 'Certificates that were issued (unstable).'),
  refused: counter('culvert_ca_refused_requests', 'Requests for certificates that were refused (unstable).', [
    'reason',
  ]),
  rootExpiry: gauge(
    'citadel_server_root_cert_expiry_timestamp',
    'When the first of the trusted roots ends, in seconds since 1970 (unstable).',
  ),
  signerExpiry: gauge(
    'citadel_server_cert_chain_expiry_timestamp',
    'When the certificates that sign end, in seconds since 1970 (unstable).',
  ),
  roots: gauge('culvert_ca_roots', 'Roots that are trusted; more than one while a root is being replaced (unstable).'),
} as const;

/** What there is to say of the CA itself. */
export function reportMetrics(metrics: Pick<Registry, 'computed'>, source: Pick<CaSource, 'material'>): void {
  const ends = () =>
    splitCertificates(source.material()?.rootsPem ?? '').map((pem) => new X509Certificate(pem).validToDate.getTime());
  const sample = (value: number): Sample[] => (Number.isFinite(value) ? [{ labels: [], value }] : []);
  metrics.computed(CA.rootExpiry, () => sample(Math.min(...ends()) / 1000));
  metrics.computed(CA.signerExpiry, () => sample((source.material()?.validity.notAfter ?? Number.NaN) / 1000));
  metrics.computed(CA.roots, () => sample(ends().length));
}

function counter(name: string, help: string, labels: readonly string[] = []): Family {
  return { name, type: 'counter', help, labels };
}

function gauge(name: string, help: string): Family {
  return { name, type: 'gauge', help, labels: [] };
}
