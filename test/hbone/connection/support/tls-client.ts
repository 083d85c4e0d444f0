import { connect, type TLSSocket } from 'node:tls';
import { privateKeyPem } from '../../../../src/identity/workload-key.ts';
import { IDENTITY, LOCALHOST, type PlaneUnderTest } from '../../../worker/support/plane-under-test.ts';

/** Opens mutual TLS to the HBONE port of the pod, with the pod's own identity, as often as it is called. */
export async function tlsClient({ ports, sign }: PlaneUnderTest): Promise<() => TLSSocket> {
  const { privateKey, chainPem, rootsPem } = await sign(IDENTITY);
  return () =>
    connect({
      host: LOCALHOST,
      port: ports.hbone,
      key: privateKeyPem(privateKey),
      cert: chainPem,
      ca: rootsPem,
      ALPNProtocols: ['h2'],
      checkServerIdentity: () => undefined,
    });
}
