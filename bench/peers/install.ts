/** @file Installs the peers from their own lock file when they are missing; their install scripts are not run. */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { Refusal } from "./processes.ts";

export function installPeers(): Refusal | null {
  const here = import.meta.dirname;
  if (existsSync(join(here, "node_modules", "@jax-js"))) return null;
  console.error("installing the peers (about 750 MB) …");
  const { status, error } = spawnSync(
    "npm",
    ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", here],
    {
      stdio: ["ignore", "inherit", "inherit"],
    },
  );
  return status === 0
    ? null
    : new Refusal(`npm ci failed: ${error?.message ?? `status ${status}`}`);
}
