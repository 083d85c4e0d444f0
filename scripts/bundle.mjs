// The bundle that an image ships, run by the pinned Node: dist/culvert.mjs for the command, dist/worker.mjs for threads.
//
//   node scripts/bundle.mjs [--quiet]
//
// Libraries that are imported on demand (`await import()`) become chunks of their own, so that an agent that never needs
// them never loads them. Source maps lie beside the bundle and are read only when asked for (--enable-source-maps).
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { isBuiltin } from 'node:module';
import { basename, join } from 'node:path';
import { build } from 'esbuild';
import { addonFile } from './setup/addon.mjs';
import { cache, root } from './setup/layout.mjs';
import { pluginFile } from './setup/plugin.mjs';

/**
 * `await import('library')` of a CommonJS library gives its named exports in Node, but only `default` in a bundle with
 * chunks. So each such import goes through a module that exports the names that Node gives.
 */
const lazyLibraries = {
  name: 'lazy-libraries',
  setup(bundle) {
    bundle.onResolve({ filter: /^[^./]/ }, ({ path, kind }) =>
      kind === 'dynamic-import' && !isBuiltin(path) ? { path, namespace: 'lazy' } : undefined,
    );
    bundle.onLoad({ filter: /.*/, namespace: 'lazy' }, async ({ path }) => {
      const names = Object.keys(await import(path)).filter((name) => /^[\w$]+$/.test(name));
      const library = JSON.stringify(path);
      return {
        contents: `import * as library from ${library};\nconst { ${names
          .map((name) => `${name}: _${name}`)
          .join(', ')} } = library;\nexport { ${names.map((name) => `_${name} as ${name}`).join(', ')} };`,
        resolveDir: root,
      };
    });
  },
};

const target = join(root, 'dist');
// Built aside and moved into place, so that a reader never sees half a bundle.
mkdirSync(cache, { recursive: true });
const staging = mkdtempSync(join(cache, 'dist-'));

try {
  const { outputFiles } = await build({
    absWorkingDir: root,
    entryPoints: { culvert: 'src/cli.ts', worker: 'src/worker/thread.ts' },
    outdir: target,
    write: false,
    outExtension: { '.js': '.mjs' },
    chunkNames: 'chunk-[hash]',
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node26',
    // V8 keeps the source text in memory. Names stay, for stack traces that can be read without a map.
    minifyWhitespace: true,
    minifySyntax: true,
    // Node prints the whole source line of an uncaught error.
    lineLimit: 160,
    sourcemap: 'linked',
    legalComments: 'linked',
    // CommonJS libraries inside an ES module bundle call `require` for Node's own modules.
    banner: {
      js: "import{createRequire as bundleRequire}from'node:module';const require=bundleRequire(import.meta.url);",
    },
    plugins: [lazyLibraries],
    logLevel: 'warning',
  });
  for (const { path, contents } of outputFiles) writeFileSync(join(staging, basename(path)), contents);
  copyFileSync(addonFile(), join(staging, 'culvert.node'));
  copyFileSync(pluginFile, join(staging, 'culvert-cni'));
  rmSync(target, { recursive: true, force: true });
  renameSync(staging, target);
} finally {
  rmSync(staging, { recursive: true, force: true });
}

if (!process.argv.includes('--quiet')) {
  for (const name of readdirSync(target).sort()) {
    process.stdout.write(
      `${String(Math.ceil(statSync(join(target, name)).size / 1024)).padStart(7)} KiB  dist/${name}\n`,
    );
  }
}
