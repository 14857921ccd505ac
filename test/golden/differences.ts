/** @file Cases in which Hinode differs from PyTorch on purpose (SEMANTICS: dtypes), with the reason. */
export const differences: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  ops: {
    "kink-sqrt":
      "the gradient of abs selects by the sign: 0 at 0 also for an infinite cotangent, where PyTorch multiplies 0 · ∞ to NaN",
  },
  nn: {},
  transforms: {},
};
