/**
 * @file How long a call takes: warm-up (engines optimise while they run), then single calls, each to its end; the median. How
 * many calls is a matter of how long they take, by one rule for every framework.
 */
import type { Prepared } from "./framework.ts";

export interface Patience {
  /** Milliseconds of warm-up, and of measuring. */
  readonly warm: number;
  readonly measure: number;
  readonly atLeast: number;
  readonly atMost: number;
}

export const patience = (quick: boolean): Patience =>
  quick
    ? { warm: 0, measure: 0, atLeast: 2, atMost: 2 }
    : { warm: 300, measure: 500, atLeast: 10, atMost: 100 };

/** Calls until `warm` milliseconds have passed, at least two unless one takes a second; the last one's time. */
export async function warmUp({ run }: Prepared, warm: number): Promise<number> {
  const begin = performance.now();
  for (let i = 0; ; i++) {
    const start = performance.now();
    await run();
    const now = performance.now();
    if (now - start > slowish || (i > 0 && now - begin >= warm)) return now - start;
  }
}

/** Milliseconds of a call beyond which one is measured, and beyond which three are. */
export const slow = 2500;
const slowish = 1000;

/** How many calls to measure that take about `ms` each. Three (or one) for what takes seconds. */
export function runsFor(ms: number, { measure, atLeast, atMost }: Patience): number {
  if (ms > slow) return 1;
  if (ms > slowish) return Math.min(3, atLeast);
  return Math.min(atMost, Math.max(atLeast, Math.ceil(measure / ms)));
}

export async function times({ run }: Prepared, runs: number): Promise<number[]> {
  const found: number[] = [];
  for (let i = 0; i < runs; i++) {
    const start = performance.now();
    await run();
    found.push(performance.now() - start);
  }
  return found;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}
