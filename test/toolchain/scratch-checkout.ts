import { spawn } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';

const repository = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

const smallAddon = `#include <napi.h>
static Napi::Object Init(Napi::Env env, Napi::Object exports) { return exports; }
NODE_API_MODULE(culvert, Init)
`;
const smallBinding = `{ "targets": [{ "target_name": "culvert", "sources": ["addon.cc"],
  "include_dirs": ["<!@(node -p \\"require('node-addon-api').include\\")"],
  "defines": ["NODE_ADDON_API_DISABLE_CPP_EXCEPTIONS"] }] }
`;
const smallCommand = `if (process.argv[2] === 'agent') {
  process.on('SIGTERM', () => process.exit(7));
  setInterval(() => {}, 1000);
}
process.exitCode = Number(process.env.CLI_EXIT ?? 0);
console.log(JSON.stringify(process.argv.slice(2)));
`;

/**
 * A checkout with the real set-up and a small addon and command, sharing this checkout's node_modules; removed after
 * the test.
 */
export function makeScratchCheckout(t: TestContext): string {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), 'culvert-checkout-')));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  for (const name of ['scripts', 'bin', 'package.json', 'package-lock.json']) {
    cpSync(join(repository, name), join(folder, name), { recursive: true });
  }
  symlinkSync(join(repository, 'node_modules'), join(folder, 'node_modules'));
  mkdirSync(join(folder, 'native', 'cni-plugin'), { recursive: true });
  mkdirSync(join(folder, 'src'));
  writeFileSync(join(folder, 'native', 'addon.cc'), smallAddon);
  writeFileSync(join(folder, 'native', 'binding.gyp'), smallBinding);
  writeFileSync(join(folder, 'native', 'cni-plugin', 'main.cc'), 'int main() { return 0; }\n');
  writeFileSync(join(folder, 'src', 'cli.ts'), smallCommand);
  return folder;
}

export interface Outcome {
  status: number | null;
  stdout: string;
  stderr: string;
}

/** Runs a program to its end. */
export function run(command: string, args: readonly string[], env: NodeJS.ProcessEnv = process.env): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    child.on('error', reject);
    child.on('close', (status) => resolve({ status, stdout, stderr }));
  });
}
