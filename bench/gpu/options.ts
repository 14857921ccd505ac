/** @file What the scripts of bench/gpu share: their arguments, opening the GPU, and what must be known of a measurement. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { defaultDevice, deviceInfo, init, type Tiles } from "hinode";
import { defaultToggles, describeAdapter } from "../../core/backend/webgpu/adapter.ts";

/** Arguments of both scripts. */
const shared = {
  /** Tiny sizes: shows that it works, measures nothing. */
  quick: { type: "boolean" },
  /** Where results go. */
  json: { type: "string" },
  /** Dawn without bounds checks. */
  "no-robustness": { type: "boolean" },
  /** More toggles of Dawn, separated by commas. */
  toggles: { type: "string" },
  /** What tune.ts has found. */
  tiles: { type: "string" },
} as const;

export type OptionTable = NonNullable<NonNullable<Parameters<typeof parseArgs>[0]>["options"]>;

export function readArguments<const T extends OptionTable>(options: T) {
  try {
    return parseArgs({ options: { ...shared, ...options }, allowPositionals: true });
  } catch (error) {
    console.error((error as Error).message);
    process.exit(2);
  }
}

export const readTiles = (path: string): Tiles => JSON.parse(readFileSync(path, "utf8"));

export interface Circumstances {
  readonly adapter: string;
  readonly software: boolean;
  readonly robust: boolean;
  readonly toggles: readonly string[];
  readonly features: readonly string[];
  readonly tiles: string | null;
  readonly commit: string;
  readonly node: string;
  readonly date: string;
}

/** Opens the GPU as the arguments say. One that is simulated is only good for --quick. */
export async function openGpu(values: {
  readonly quick?: boolean;
  readonly "no-robustness"?: boolean;
  readonly toggles?: string;
  readonly tiles?: string;
}): Promise<Circumstances> {
  const unchecked = values["no-robustness"] ? ["disable_robustness", "disable_workgroup_init"] : [];
  const more = values.toggles?.split(",") ?? [];
  const toggles = [...new Set([...defaultToggles, ...unchecked, ...more])];
  const tiles = values.tiles ? readTiles(values.tiles) : undefined;
  await init({ device: "webgpu", toggles, ...(tiles && { tiles }) });
  const { adapter, features } = deviceInfo();
  const { software } = adapter!;
  const name = describeAdapter(adapter!);
  if (software && !values.quick) {
    console.error(
      `only ${name}, which computes on the processor: nothing to measure (see --quick)`,
    );
    process.exit(2);
  }
  return {
    adapter: name,
    software,
    robust: !toggles.includes("disable_robustness"),
    toggles,
    features: features!,
    tiles: values.tiles ?? null,
    commit: commit(),
    node: process.version,
    date: new Date().toISOString(),
  };
}

/** Leaves the whole GPU to others. */
export const closeGpu = (): void => defaultDevice().destroy();

/** The version that was measured, and whether it was changed since. */
function commit(): string {
  const git = (...args: string[]) =>
    execFileSync("git", args, {
      cwd: import.meta.dirname,
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    }).trim();
  try {
    const changed = git("status", "--porcelain") === "" ? "" : ", with changes";
    return git("rev-parse", "--short", "HEAD") + changed;
  } catch {
    return "unknown";
  }
}

export const formatCircumstances = (c: Circumstances): string =>
  [
    `adapter   ${c.adapter}`,
    `toggles   ${c.toggles.join(", ")} (robustness ${c.robust ? "on" : "OFF"})`,
    `features  ${c.features.join(", ")}`,
    `tiles     ${c.tiles ?? "as guessed"}`,
    `commit    ${c.commit}; Node ${c.node}; ${c.date}`,
  ].join("\n");
