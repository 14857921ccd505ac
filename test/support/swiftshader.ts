/**
 * @file A Vulkan driver that computes on the CPU, from an npm package: with it the tests of WebGPU need no GPU. It is
 * unpacked once; processes find it by two variables that are read when they start.
 */
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join, resolve } from "node:path";
import { brotliDecompressSync } from "node:zlib";

const root = resolve(import.meta.dirname, "../..");
const archive = join(root, "node_modules/@sparticuz/chromium/bin/swiftshader.tar.br");

const exists = (path: string): boolean => statSync(path, { throwIfNoEntry: false }) !== undefined;

/** The files of a tar archive: 512-byte headers with an octal size, contents rounded up to 512 bytes. */
export function* untar(tar: Buffer): Generator<{ name: string; data: Buffer }> {
  const text = (at: number, length: number) =>
    tar.toString("latin1", at, at + length).replace(/\0.*$/s, "");
  for (let at = 0; at + 512 <= tar.length && tar[at] !== 0; ) {
    const size = Number.parseInt(text(at + 124, 12), 8) || 0;
    const isFile = tar[at + 156] === 0 || tar[at + 156] === 0x30;
    if (isFile) yield { name: text(at, 100), data: tar.subarray(at + 512, at + 512 + size) };
    at += 512 + Math.ceil(size / 512) * 512;
  }
}

/** Unpacks a compressed archive into the cache, whole or not at all, and returns the folder. */
export function unpack(name: string, path: string): string {
  const folder = join(root, "node_modules/.cache/hinode", name);
  if (exists(folder)) return folder;
  mkdirSync(dirname(folder), { recursive: true });
  const temporary = mkdtempSync(`${folder}-`);
  for (const { name: file, data } of untar(brotliDecompressSync(readFileSync(path)))) {
    const target = join(temporary, file);
    mkdirSync(dirname(target), { recursive: true });
    writeFileSync(target, data, { mode: 0o755 });
  }
  try {
    renameSync(temporary, folder);
  } catch (error) {
    // Another process was faster.
    rmSync(temporary, { recursive: true });
    if (!exists(folder)) throw error;
  }
  return folder;
}

/** The environment of a process that is to find SwiftShader; empty without the package. */
export function swiftshaderEnvironment(): Record<string, string> {
  if (!exists(archive) || process.platform !== "linux") return {};
  const folder = unpack("swiftshader", archive);
  const paths = [folder, ...(process.env.LD_LIBRARY_PATH?.split(":") ?? [])];
  return {
    VK_ICD_FILENAMES: join(folder, "vk_swiftshader_icd.json"),
    LD_LIBRARY_PATH: [...new Set(paths)].join(":"),
  };
}
