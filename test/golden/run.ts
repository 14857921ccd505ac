/** @file Runs groups of golden cases on one device and keeps the score. */
import { defaultDevice, init } from "hinode";
import { describeMeasure } from "./comparison.ts";
import type { GoldenCase } from "./group.ts";

export interface Failure {
  readonly group: string;
  readonly id: string;
  readonly call: string;
  readonly reason: string;
}

export interface GroupScore {
  passed: number;
  failed: number;
  /** The worst error of those that have one, as a share of the tolerance (finite), and whose it is. */
  worst: { readonly share: number; readonly id: string; readonly what: string } | null;
}

export interface Score {
  readonly device: string;
  readonly groups: Record<string, GroupScore>;
  readonly failures: Failure[];
}

/** Null if the case passes, else what is wrong with it. */
export async function judge(c: GoldenCase, score?: GroupScore): Promise<string | null> {
  try {
    const m = await c.run();
    if (score && Number.isFinite(m.share) && m.share > (score.worst?.share ?? -1))
      score.worst = { share: m.share, id: c.id, what: m.what };
    return m.share > 1 ? describeMeasure(m) : null;
  } catch (error) {
    const { name, message } = error as Error;
    return name === "NotCovered" ? `not covered: ${message}` : `${name}: ${message}`;
  }
}

export async function runGroups(
  device: "reference" | "wasm" | "webgpu",
  groups: ReadonlyMap<string, readonly GoldenCase[]>,
  observe: {
    failure(f: Failure): void;
    progress(group: string, id: string, done: number, of: number): void;
  },
): Promise<Score> {
  await init({ device });
  const score: Score = { device: defaultDevice().name, groups: {}, failures: [] };
  for (const [group, cases] of groups) {
    const own: GroupScore = { passed: 0, failed: 0, worst: null };
    score.groups[group] = own;
    for (const [i, c] of cases.entries()) {
      observe.progress(group, c.id, i, cases.length);
      const reason = await judge(c, own);
      if (reason === null) own.passed++;
      else {
        own.failed++;
        const failure = { group, id: c.id, call: c.call, reason };
        score.failures.push(failure);
        observe.failure(failure);
      }
    }
  }
  return score;
}
