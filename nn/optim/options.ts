/**
 * @file The options of optimizers: what is left out gets its default, and each name has one range, whichever optimizer it
 * is an option of.
 */
import { ArgumentError, describe } from "../../core/errors.ts";

/** Options that are given (undefined is not) on top of the defaults. @throws ArgumentError for a name without a default. */
export function completed<O extends object>(op: string, defaults: O, given: Partial<O>): O {
  const set = Object.entries(given).filter(([, value]) => value !== undefined);
  const unknown = set.find(([name]) => !Object.hasOwn(defaults, name));
  if (unknown)
    throw new ArgumentError(
      describe(op, `options among ${Object.keys(defaults).join(", ")}`, unknown[0]),
    );
  return { ...defaults, ...Object.fromEntries(set) };
}

type Range = readonly [holds: (x: number) => boolean, text: (name: string) => string];
const nonNegative: Range = [(x) => x >= 0, (name) => `${name} ≥ 0`];
const fraction: Range = [(x) => x >= 0 && x < 1, (name) => `0 ≤ ${name} < 1`];
const share: Range = [(x) => x >= 0 && x <= 1, (name) => `0 ≤ ${name} ≤ 1`];
const nonPositive: Range = [(x) => x <= 0, (name) => `${name} ≤ 0`];
const atLeastOne: Range = [(x) => x >= 1, (name) => `${name} ≥ 1`];
const positive: Range = [(x) => x > 0, (name) => `${name} > 0`];

/** Of each number of the option; null, where an option has it, means "none". */
const ranges: Readonly<Record<string, Range>> = {
  lr: nonNegative,
  weightDecay: nonNegative,
  eps: nonNegative,
  momentum: nonNegative,
  momentumDecay: nonNegative,
  lrDecay: nonNegative,
  initialAccumulatorValue: nonNegative,
  lambd: nonNegative,
  alpha: nonNegative,
  betas: fraction,
  beta1: fraction,
  rho: share,
  beta2Decay: nonPositive,
  decayRate: nonPositive,
  d: atLeastOne,
  clipThreshold: positive,
  maxGradNorm: positive,
  stepSizes: positive,
};

/** @throws ArgumentError for a value outside its range, NaN among them. */
export function checkOptions(op: string, options: object): void {
  for (const [name, value] of Object.entries(options)) {
    if (!Object.hasOwn(ranges, name)) continue;
    const [holds, text] = ranges[name];
    for (const [k, x] of [value].flat().entries())
      if (x !== null && !holds(x))
        throw new ArgumentError(
          describe(op, text(Array.isArray(value) ? `${name}[${k}]` : name), String(x)),
        );
  }
}
