/**
 * @file How the benchmarks measure: inputs resident, a warm-up (WebAssembly is optimised while it runs), then the
 * shortest of many runs, each awaited to its end, as the limits of peak.ts are measured. Machines are noisy, so a
 * figure is stated as a ratio to a limit of the same process.
 */
import { defaultDevice, type Tensor } from "hinode";

export interface Figure {
  readonly name: string;
  readonly text: string;
  /** What was reached, and the bar; null: only reported. */
  readonly value: number;
  readonly bar: number | null;
  /** Smaller is better. */
  readonly atMost?: boolean;
}

export const passes = ({ value, bar, atMost }: Figure): boolean =>
  bar === null || (atMost ? value <= bar : value >= bar);

/** Seconds of one call of `fn`, whose result is awaited and disposed of: the shortest of `runs`. */
export async function seconds(fn: () => Tensor, runs = 40, warmup = 60): Promise<number> {
  const device = defaultDevice();
  let shortest = Number.POSITIVE_INFINITY;
  for (let i = -warmup; i < runs; i++) {
    const start = performance.now();
    const result = fn();
    await device.ready();
    if (i >= 0) shortest = Math.min(shortest, performance.now() - start);
    result.dispose();
  }
  return shortest / 1000;
}
