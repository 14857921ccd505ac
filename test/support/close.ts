/** @file Element-wise comparison with PyTorch's rule, |got − want| ≤ atol + rtol · |want|. */

export interface Tolerance {
  readonly rtol: number;
  readonly atol: number;
}

/** Null when all elements agree (NaN with NaN, infinities with their sign, 0 with −0), else what is wrong. */
export function difference(
  got: ArrayLike<number>,
  want: ArrayLike<number>,
  { rtol, atol }: Tolerance,
): string | null {
  if (got.length !== want.length) return `${got.length} elements instead of ${want.length}`;
  let wrong = 0;
  let first = "";
  for (let i = 0; i < want.length; i++) {
    const [g, w] = [got[i], want[i]];
    if (g === w || (Number.isNaN(g) && Number.isNaN(w))) continue;
    if (Number.isFinite(g) && Math.abs(g - w) <= atol + rtol * Math.abs(w)) continue;
    if (wrong++ === 0) first = `element ${i}: got ${g}, want ${w} (off by ${Math.abs(g - w)})`;
  }
  return wrong ? `${wrong} of ${want.length} elements differ; ${first}` : null;
}
