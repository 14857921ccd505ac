/** @file The functions that kernels of a module may call, by name; each is made when the first kernel asks for it. */
import type { FunctionSource } from "./assembler.ts";
import type { HelperName, Target } from "./math-ops.ts";
import { makeFmod, makeFmodLane, makePow } from "./math-pow.ts";
import { makeTrigLane, makeTrigLarge } from "./math-trig.ts";

const makers: { readonly [N in HelperName]: (t: Target) => FunctionSource } = {
  pow: makePow,
  fmod: makeFmod,
  fmodLane: makeFmodLane,
  trigLarge: makeTrigLarge,
  trigLane: makeTrigLane,
};

export const makeHelper = (name: HelperName, target: Target): FunctionSource =>
  makers[name](target);
