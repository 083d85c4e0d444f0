import type { Config } from '../config/config.ts';
import { CulvertError, messageOf } from '../errors.ts';
import type { Logger } from '../log/logger.ts';
import type { CertificateAuthorityClient } from './certificate.ts';
import { openEmbeddedCa } from './embedded-ca.ts';
import { openIstioCa } from './istio-ca.ts';

/**
 * Who signs certificates: the embedded CA when its folder is given, else the control plane's.
 *
 * @param renewAll called when the embedded CA has become another one
 * @throws CulvertError when it cannot be used; the message says what to change
 */
export async function openAuthority(
  config: Config,
  log: Logger,
  renewAll: () => void,
): Promise<CertificateAuthorityClient> {
  const { caDir: dir, secretTtl: ttl } = config;
  if (dir !== null) {
    const changed = (error: Error | null) => {
      if (error === null) {
        log.info('identity::ca', 'the folder of the CA has changed, all certificates are renewed', { folder: dir });
        renewAll();
      } else {
        log.warn('identity::ca', 'the folder of the CA cannot be used as it is now, the CA of before stays', {
          error: error.message,
        });
      }
    };
    return openEmbeddedCa({ dir, ttl, now: Date.now, changed });
  }
  const authority = openIstioCa({
    server: {
      prefix: 'CA',
      address: config.caAddress!,
      roots: config.caRootCert,
      altHostname: config.altCaHostname,
      token: config.authToken,
      clusterId: config.clusterId,
      headers: config.caHeaders,
    },
    ttl: config.secretTtl,
    account: { namespace: config.podNamespace, serviceAccount: config.serviceAccount },
    log,
  });
  return authority.catch((cause: unknown) => {
    const instead = 'without a control plane, set CULVERT_CA_DIR to a folder for the embedded CA';
    throw new CulvertError('CONFIG_INVALID', `${messageOf(cause)}; ${instead}`, { cause });
  });
}
