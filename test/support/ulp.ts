/** @file Errors of floating-point functions in units of the last place, and arguments worth trying. */

export const ulp = (x: number): number =>
  Math.abs(x) < 2 ** -126 ? 2 ** -149 : 2 ** (Math.floor(Math.log2(Math.abs(x))) - 23);

/** Distance in units of the last place of the true value; what rounds to ∞ may be the largest float. */
export function errorIn(got: number, want: number): number {
  const rounded = Math.fround(want);
  if (Object.is(got, rounded)) return Number.isFinite(got) ? Math.abs(got - want) / ulp(want) : 0;
  // Zeros of the wrong sign, NaN and ∞ in the wrong place are no matter of degree.
  if (Number.isNaN(got) || Number.isNaN(want) || got === want) return Infinity;
  const top = 2 ** 128;
  const [g, w] = [got, rounded].map((v) => (Math.abs(v) === Infinity ? Math.sign(v) * top : v));
  return (
    Math.abs(g - (Math.abs(rounded) === Infinity ? w : want)) /
    ulp(Math.min(Math.abs(want), 2 ** 127))
  );
}

/** Zeros, bounds of the format, and where the functions change their way of computing. */
export const special = [
  0,
  -0,
  1,
  -1,
  0.5,
  -0.5,
  2,
  -2,
  3,
  -3,
  2.5,
  1e-45,
  -1e-45,
  1.1754944e-38,
  3.4028235e38,
  -3.4028235e38,
  Infinity,
  -Infinity,
  Number.NaN,
  8388607,
  8388609,
  16777217,
  88.7228,
  88.72284,
  -87.3365,
  -103.97,
  -104,
  0.625,
  0.93,
  4,
  9.25,
  67108863,
  67108864,
  1e30,
  0.99999994,
  1.0000001,
];
