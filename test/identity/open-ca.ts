/** Opens the CA of the folder that is given as argument and prints its roots: an agent's start, as a process of its own. */
import { openCa } from './ca-folders.ts';

const certificate = await (await openCa(process.argv[2]!)).sign('spiffe://cluster.local/ns/default/sa/web');
process.stdout.write(certificate.rootsPem);
