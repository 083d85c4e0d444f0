/** Not a test: serves on the addresses given as arguments, says on which it does, and ends. */
import { serveHttp } from '../../src/admin/http-service.ts';
import { memoryLog } from './client.ts';

const addresses = process.argv.slice(2).map((ip) => ({ ip, port: 0 }));
const handle = () => ({ status: 200, body: '' });
const service = await serveHttp({ name: 'test', addresses, handle, log: memoryLog().log });
console.log(service.addresses.map(({ ip }) => ip).join(' '));
await service.close(0);
