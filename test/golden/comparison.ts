/**
 * @file How far a result is from the stored one: the worst error as a share of its tolerance, with PyTorch's rule
 * |got − want| ≤ atol + rtol · |want|. A share above 1 is a failure.
 */
import type { Tensor } from "hinode";
import type { StoredTensor } from "../support/safetensors.ts";

export interface Tolerance {
  readonly rtol: number;
  readonly atol: number;
}

export interface Measure {
  /** The worst error, in tolerances: 0 where all elements are equal, infinite where none is allowed. */
  readonly share: number;
  /** Which tensor that is in. */
  readonly what: string;
  /** Which element it is, and how many are further away than the tolerance. */
  readonly at?: {
    readonly index: number;
    readonly got: number;
    readonly want: number;
    readonly wrong: number;
  };
}

export const worst = (measures: Iterable<Measure>): Measure =>
  [...measures].reduce((a, b) => (b.share > a.share ? b : a), { share: 0, what: "" });

export function describeMeasure({ share, what, at }: Measure): string {
  const off =
    share === Infinity ? "where no error is allowed" : `${share.toPrecision(3)} tolerances off`;
  if (!at) return `${what}: ${off}`;
  return `${what}: element ${at.index}: got ${at.got}, want ${at.want}, ${off}; ${at.wrong} wrong`;
}

/** NaN equals NaN, infinities their sign, 0 equals −0. */
export function measure(
  what: string,
  got: ArrayLike<number>,
  want: ArrayLike<number>,
  shareOf: (got: number, want: number, index: number) => number,
): Measure {
  if (got.length !== want.length)
    throw new Error(`${what}: ${got.length} elements instead of ${want.length}`);
  let share = 0;
  let index = -1;
  let wrong = 0;
  for (let i = 0; i < want.length; i++) {
    const [g, w] = [got[i], want[i]];
    if (g === w || (Number.isNaN(g) && Number.isNaN(w))) continue;
    const own = Number.isFinite(g) && Number.isFinite(w) ? shareOf(g, w, i) : Infinity;
    if (own > 1) wrong++;
    if (own > share) [share, index] = [own, i];
  }
  if (index < 0) return { share, what };
  return { share, what, at: { index, got: got[index], want: want[index], wrong } };
}

export const shareOf =
  ({ rtol, atol }: Tolerance) =>
  (got: number, want: number): number =>
    Math.abs(got - want) / (atol + rtol * Math.abs(want));

/** Shape and dtype must be the stored ones, values within the tolerance. */
export async function measureTensor(
  what: string,
  got: Tensor,
  want: StoredTensor,
  dtype: string,
  tolerance: Tolerance,
  skipped: ((i: number) => boolean) | null = null,
): Promise<Measure> {
  if (`${got.shape}` !== `${want.shape}`)
    throw new Error(`${what}: shape [${got.shape}] instead of [${want.shape}]`);
  if (got.dtype !== dtype) throw new Error(`${what}: dtype ${got.dtype} instead of ${dtype}`);
  const kept = (data: ArrayLike<number>) =>
    skipped ? Array.from(data, (x, i) => (skipped(i) ? 0 : x)) : data;
  return measure(what, kept(await got.data()), kept(want.data), shareOf(tolerance));
}
