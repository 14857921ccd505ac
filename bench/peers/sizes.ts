/** @file Bytes that each peer takes when installed: its package and what that needs, as files on the disk. */
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Peer } from "./processes.ts";

/** Bytes of the files below; nested node_modules are counted by `withDependencies`. */
function bytesBelow(folder: string, counts: (name: string) => boolean = () => true): number {
  let sum = 0;
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory() && entry.name !== "node_modules") sum += bytesBelow(path, counts);
    else if (entry.isFile() && counts(entry.name)) sum += statSync(path).size;
  }
  return sum;
}

function withDependencies(names: readonly string[]): number {
  const modules = join(import.meta.dirname, "node_modules");
  const seen = new Set<string>();
  const visit = (name: string): number => {
    const folder = join(modules, name);
    if (seen.has(name) || !existsSync(folder)) return 0;
    seen.add(name);
    const { dependencies = {} } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    return Object.keys(dependencies).reduce((sum, next) => sum + visit(next), bytesBelow(folder));
  };
  return names.reduce((sum, name) => sum + visit(name), 0);
}

const packages: Partial<Record<Peer, readonly string[]>> = {
  "jax-js": ["@jax-js/jax"],
  "tfjs-cpu": ["@tensorflow/tfjs"],
  "tfjs-wasm": ["@tensorflow/tfjs", "@tensorflow/tfjs-backend-wasm"],
  "ort-web": ["onnxruntime-web"],
  "ort-node": ["onnxruntime-node"],
};

/** null: not installed. Hinode's is what `npm run build` made, else its sources. */
export function installedBytes(peer: Peer): number | null {
  if (peer === "hinode" || peer === "hinode-wide") {
    const root = join(import.meta.dirname, "../..");
    const built = join(root, "dist");
    if (existsSync(built)) return bytesBelow(built);
    const isSource = (name: string) => name.endsWith(".ts");
    return ["core", "nn", "models", "data", "testing"].reduce(
      (sum, f) => sum + bytesBelow(join(root, f), isSource),
      0,
    );
  }
  if (peer === "torch") {
    const { status, stdout } = spawnSync(
      process.env.PYTHON ?? "python3",
      ["-c", "import torch; print(torch.__file__)"],
      { encoding: "utf8" },
    );
    return status === 0 ? bytesBelow(dirname(stdout.trim())) : null;
  }
  return withDependencies(packages[peer]!) || null;
}
