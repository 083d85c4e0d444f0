/** What passes the link between the nodes. */
import assert from 'node:assert/strict';
import { OWN_NETNS } from '../../native/netns.ts';
import { captureLink } from '../../src/demo/link-capture.ts';
import { viewAsTls } from '../../src/demo/tls-stream.ts';
import { eventually } from '../cni/support/eventually.ts';
import { fetchFrom, podIp, WAIT } from './demo-pods.ts';

const LINK = 'kube2';
/** Where tunnels are taken in. */
const HBONE = 15008;

/**
 * A request to a pod on the other node passes in a tunnel of TLS, and nothing of it beside. Asks until it does: before both
 * agents know that the pods are in the mesh, connections between them are plain.
 */
export async function goesThroughTunnel(client: string, server: string): Promise<void> {
  const ip = await podIp(server);
  const wire = captureLink(OWN_NETNS, LINK);
  const sent = () => wire.streams().filter(({ receiver, bytes }) => receiver.ip === ip && bytes.length > 0);
  const inTunnels = () => sent().filter(({ receiver }) => receiver.port === HBONE);
  const plain = () => sent().length - inTunnels().length;
  const tunnelled = () => inTunnels().reduce((sum, { bytes }) => sum + bytes.length, 0);
  try {
    await eventually(
      `a request of ${client} reaches ${server} in a tunnel only`,
      async () => {
        const before = { plain: plain(), tunnelled: tunnelled() };
        assert.match(await fetchFrom(client, server), new RegExp(`I am ${server}`));
        assert.equal(plain(), before.plain, 'the request can be read on the wire');
        assert.ok(tunnelled() > before.tunnelled, 'nothing passed the link in a tunnel');
        return true;
      },
      WAIT,
    );
    for (const { bytes } of inTunnels()) assert.equal(viewAsTls(bytes).kind, 'tls');
  } finally {
    wire.close();
  }
}

/** A request to a pod on the other node can be read on the wire. */
export async function goesPlain(client: string, server: string): Promise<void> {
  const wire = captureLink(OWN_NETNS, LINK);
  try {
    assert.match(await fetchFrom(client, server), new RegExp(`I am ${server}`));
    assert.ok(wire.streams().some(({ receiver, bytes }) => receiver.port === 8080 && bytes.includes('GET /')));
  } finally {
    wire.close();
  }
}
