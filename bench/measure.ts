/**
 * @file What one figure of `npm run bench` is, and whether its bar was met. Machines are noisy: a time is a median, and a share of
 * a limit is that of the shortest call, as the limits are those of the shortest too, measured beside it.
 */
export interface Figure {
  readonly name: string;
  readonly family: string;
  readonly device: string;
  readonly threads: number;
  /** Median of one call; null for what is no time. */
  readonly ms: number | null;
  readonly gflops: number | null;
  readonly gbs: number | null;
  /** Share of the machine's limit, 0 to 1. */
  readonly roofline: number | null;
  /** Another measure, in words and as a number. */
  readonly other?: { readonly text: string; readonly value: number };
  /** On `roofline`, or on `other` where there is one. */
  readonly bar?: { readonly atLeast: number } | { readonly atMost: number };
}

export function passes({ bar, roofline, other }: Figure): boolean {
  const value = other?.value ?? roofline;
  if (!bar || value === null) return true;
  return "atLeast" in bar ? value >= bar.atLeast : value <= bar.atMost;
}
