// The container image, made without a registry and without a daemon:
//
//   node scripts/image.mjs [--quiet]              dist/culvert-image.tar, a docker-archive (docker load, ctr image import)
//   node scripts/image.mjs --rootfs FOLDER        the files of the image, for the Dockerfile
//
// Its name is that in deploy/daemonset.yaml. The same sources give the same bytes.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { HOME, rootfs } from './image/rootfs.mjs';
import { tar } from './image/tar.mjs';
import { root, toolEnvironment } from './setup/layout.mjs';
import { orExplain } from './setup.mjs';

const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const name = `culvert:${version}`;
const architecture = { x64: 'amd64', arm64: 'arm64' }[process.arch];

await orExplain(async () => {
  const sbom = execFileSync('npm', ['sbom', '--sbom-format=spdx', '--omit=dev'], {
    cwd: root,
    env: toolEnvironment(),
    stdio: ['ignore', 'pipe', 'pipe'],
    maxBuffer: 64 * 1024 * 1024,
  });
  writeFileSync(join(root, 'dist/sbom.spdx.json'), sbom);
  const entries = rootfs(sbom);
  const folder = process.argv.indexOf('--rootfs');
  if (folder >= 0) unpack(entries, process.argv[folder + 1]);
  else writeArchive(entries);
});

function writeArchive(entries) {
  const layer = tar(entries);
  const digest = sha256(layer);
  const config = Buffer.from(
    JSON.stringify({
      architecture,
      os: 'linux',
      config: {
        // As bin/culvert runs it; that file has the reasons.
        Entrypoint: [`/${HOME}/node`, '--max-semi-space-size=4', '--disable-sigusr1', `/${HOME}/culvert.mjs`],
        // The root file system is read-only: the lock of iptables-legacy goes where something can be written.
        Env: ['PATH=/usr/sbin:/usr/bin:/sbin:/bin', 'MALLOC_ARENA_MAX=2', 'XTABLES_LOCKFILE=/tmp/xtables.lock'],
        WorkingDir: '/',
        Labels: { 'org.opencontainers.image.title': 'culvert', 'org.opencontainers.image.version': version },
      },
      rootfs: { type: 'layers', diff_ids: [`sha256:${digest}`] },
      history: [{ created: '1970-01-01T00:00:00Z', created_by: 'scripts/image.mjs' }],
    }),
  );
  const configName = `${sha256(config)}.json`;
  const manifest = [{ Config: configName, RepoTags: [name], Layers: [`${digest}/layer.tar`] }];
  const file = join(root, 'dist/culvert-image.tar');
  writeFileSync(
    file,
    tar([
      { path: 'manifest.json', data: Buffer.from(JSON.stringify(manifest)) },
      { path: configName, data: config },
      { path: digest },
      { path: `${digest}/layer.tar`, data: layer },
    ]),
  );
  if (!process.argv.includes('--quiet')) {
    process.stdout.write(`${name}: ${Math.ceil(layer.length / 2 ** 20)} MiB in dist/culvert-image.tar\n`);
  }
}

function unpack(entries, folder) {
  for (const { path, mode, data, target } of entries) {
    const file = join(folder, path);
    mkdirSync(dirname(file), { recursive: true });
    if (data !== undefined) {
      writeFileSync(file, data);
      chmodSync(file, mode ?? 0o444);
    } else if (target !== undefined) {
      symlinkSync(target, file);
    } else {
      mkdirSync(file, { recursive: true });
    }
  }
}

function sha256(data) {
  return createHash('sha256').update(data).digest('hex');
}
