/**
 * @file Views of parts side by side: sliding windows, patches as columns and back, pixel shuffling, quarter turns,
 * differences, uneven splits. Every export is also a Tensor method.
 */
import { ArgumentError, describe, ShapeError } from "../errors.ts";
import * as g from "../graph/build.ts";
import { numel } from "../shape.ts";
import { fromNode, type Tensor } from "../tensor.ts";
import { unwindow } from "../transform/window.ts";
import { axisOf } from "./axes.ts";
import { part } from "./compose.ts";
import { describeNode, nodeOf } from "./promotion.ts";

/** One number for both axes, or one each for height and width. */
export type Pair = number | readonly [height: number, width: number];

export interface PatchOptions {
  dilation?: Pair;
  padding?: Pair;
  stride?: Pair;
}

/** The windows of `size` elements along `dim`, `step` apart, each as a new last axis. */
export function unfold(x: Tensor, dim: number, size: number, step: number): Tensor {
  const n = nodeOf("unfold", x);
  const axis = axisOf("unfold", dim, n.shape.length);
  if (n.shape.length === 0) return unfold(fromNode(g.reshape(n, [1])), 0, size, step);
  if (!(Number.isInteger(size) && size > 0 && size <= n.shape[axis] && step > 0))
    throw new ArgumentError(
      describe(
        "unfold",
        `windows within axis ${axis}`,
        `size ${size}, step ${step} for ${describeNode(n)}`,
      ),
    );
  return fromNode(g.window(n, axis, size, step));
}

/**
 * The patches that a convolution reads, as columns: [N, C, H, W] → [N, C·kh·kw, L] (also without N). im2col; PyTorch's
 * `F.unfold`.
 */
export function unfold2d(x: Tensor, kernelSize: Pair, options: PatchOptions = {}): Tensor {
  const n = nodeOf("unfold2d", x);
  const plan = patches("unfold2d", kernelSize, options);
  if (n.shape.length === 3)
    return unbatched(unfold2d(fromNode(g.reshape(n, [1, ...n.shape])), kernelSize, options));
  if (n.shape.length !== 4)
    throw new ShapeError(describe("unfold2d", "[N, C, H, W] or [C, H, W]", describeNode(n)));
  const [kh, kw] = plan.kernel;
  const counts = plan.counts([n.shape[2], n.shape[3]]);
  const [ph, pw] = plan.padding;
  const padded = g.pad(n, [0, 0, ph, pw], [0, 0, ph, pw]);
  const rows = g.window(padded, 2, kh, plan.stride[0], plan.dilation[0]);
  const both = g.window(rows, 3, kw, plan.stride[1], plan.dilation[1]); // [N, C, oh, ow, kh, kw]
  const columns = g.permute(both, [0, 1, 4, 5, 2, 3]);
  return fromNode(g.reshape(columns, [n.shape[0], n.shape[1] * kh * kw, numel(counts)]));
}

/**
 * The transpose of unfold2d: columns [N, C·kh·kw, L] added up to pictures [N, C, H, W] of the given size (also without N).
 * col2im; PyTorch's `F.fold`.
 */
export function fold2d(
  x: Tensor,
  outputSize: Pair,
  kernelSize: Pair,
  options: PatchOptions = {},
): Tensor {
  const n = nodeOf("fold2d", x);
  const plan = patches("fold2d", kernelSize, options);
  if (n.shape.length === 2)
    return unbatched(
      fold2d(fromNode(g.reshape(n, [1, ...n.shape])), outputSize, kernelSize, options),
    );
  const size = pairOf("fold2d", outputSize, 0);
  const [kh, kw] = plan.kernel;
  const [oh, ow] = plan.counts(size);
  const channels = (n.shape[1] ?? 0) / (kh * kw);
  if (n.shape.length !== 3 || !Number.isInteger(channels) || n.shape[2] !== oh * ow)
    throw new ShapeError(
      describe("fold2d", `[N, C·${kh * kw}, ${oh * ow}] or the same without N`, describeNode(n)),
    );
  const [ph, pw] = plan.padding;
  const [height, width] = [size[0] + 2 * ph, size[1] + 2 * pw];
  const split = g.reshape(n, [n.shape[0], channels, kh, kw, oh, ow]);
  const apart = g.permute(split, [0, 1, 4, 5, 2, 3]); // [N, C, oh, ow, kh, kw]
  const attrs = (i: 0 | 1) => ({
    axis: 2 + i,
    size: plan.kernel[i],
    stride: plan.stride[i],
    dilation: plan.dilation[i],
  });
  const rows = unwindow(apart, attrs(1), [n.shape[0], channels, oh, width, kh]);
  const whole = unwindow(rows, attrs(0), [n.shape[0], channels, height, width]);
  return fromNode(g.slice(whole, [0, 0, ph, pw], [n.shape[0], channels, size[0], size[1]]));
}

/** Channels as pixels: [*, C·r², H, W] → [*, C, H·r, W·r] (Shi et al. 2016, arXiv 1609.05158). */
export function pixelShuffle(x: Tensor, upscaleFactor: number): Tensor {
  const n = nodeOf("pixelShuffle", x);
  const r = upscaleFactor;
  const [c, h, w] = n.shape.slice(-3);
  if (n.shape.length < 3 || !(Number.isInteger(r) && r > 0) || c % (r * r) !== 0)
    throw new ShapeError(describe("pixelShuffle", `[*, C·${r}², H, W]`, describeNode(n)));
  const lead = n.shape.slice(0, -3);
  const k = lead.length;
  const split = g.reshape(n, [...lead, c / (r * r), r, r, h, w]);
  const order = [...lead.keys(), k, k + 3, k + 1, k + 4, k + 2];
  return fromNode(g.reshape(g.permute(split, order), [...lead, c / (r * r), h * r, w * r]));
}

/** Pixels as channels: [*, C, H·r, W·r] → [*, C·r², H, W], the inverse of pixelShuffle. */
export function pixelUnshuffle(x: Tensor, downscaleFactor: number): Tensor {
  const n = nodeOf("pixelUnshuffle", x);
  const r = downscaleFactor;
  const [c, h, w] = n.shape.slice(-3);
  if (n.shape.length < 3 || !(Number.isInteger(r) && r > 0) || h % r !== 0 || w % r !== 0)
    throw new ShapeError(describe("pixelUnshuffle", `[*, C, H·${r}, W·${r}]`, describeNode(n)));
  const lead = n.shape.slice(0, -3);
  const k = lead.length;
  const split = g.reshape(n, [...lead, c, h / r, r, w / r, r]);
  const order = [...lead.keys(), k, k + 2, k + 4, k + 1, k + 3];
  return fromNode(g.reshape(g.permute(split, order), [...lead, c * r * r, h / r, w / r]));
}

/** Turned by `times` quarters in the plane of two dims, from the first towards the second. */
export function rot90(x: Tensor, times = 1, dims: readonly [number, number] = [0, 1]): Tensor {
  const n = nodeOf("rot90", x);
  const [a, b] = dims.map((d) => axisOf("rot90", d, n.shape.length));
  if (a === b || dims.length !== 2 || n.shape.length < 2)
    throw new ArgumentError(describe("rot90", "two different dims", `[${dims.join(", ")}]`));
  const order = n.shape.map((_, i) => (i === a ? b : i === b ? a : i));
  switch (((times % 4) + 4) % 4) {
    case 0:
      return x;
    case 1:
      return fromNode(g.permute(g.flip(n, [b]), order));
    case 2:
      return fromNode(g.flip(n, [a, b].sort()));
    case 3:
      return fromNode(g.permute(g.flip(n, [a]), order));
    default:
      throw new ArgumentError(describe("rot90", "an integral number of turns", String(times)));
  }
}

/** The n-th differences of neighbours along `dim`; of bools whether they differ. */
export function diff(
  x: Tensor,
  { n: times = 1, dim = -1 }: { n?: number; dim?: number } = {},
): Tensor {
  const n = nodeOf("diff", x);
  const axis = axisOf("diff", dim, n.shape.length);
  if (n.shape.length === 0 || !(Number.isInteger(times) && times >= 0))
    throw new ArgumentError(
      describe("diff", "an axis and a count of at least 0", `${times} for ${describeNode(n)}`),
    );
  let result = n;
  for (let i = 0; i < times && result.shape[axis] > 0; i++) {
    const size = result.shape[axis];
    const [later, earlier] = [part(result, axis, 1, size), part(result, axis, 0, size - 1)];
    result = n.dtype === "bool" ? g.xor(later, earlier) : g.sub(later, earlier);
  }
  return fromNode(result);
}

/** As many parts along `dim` as asked for, the first ones one larger where needed; or parts that start at the given positions. */
export function tensorSplit(x: Tensor, sections: number | readonly number[], dim = 0): Tensor[] {
  const n = nodeOf("tensorSplit", x);
  const axis = axisOf("tensorSplit", dim, n.shape.length);
  const size = n.shape[axis] ?? 0;
  if (
    n.shape.length === 0 ||
    (typeof sections === "number" && !(Number.isInteger(sections) && sections > 0))
  )
    throw new ArgumentError(
      describe(
        "tensorSplit",
        "an axis and a positive number of parts",
        `${sections} for ${describeNode(n)}`,
      ),
    );
  const bounded = (at: number) => Math.min(Math.max(at < 0 ? at + size : at, 0), size);
  const starts =
    typeof sections === "number"
      ? Array.from({ length: sections }, (_, i) => i * Math.floor(size / sections) + Math.min(i, size % sections))
      : [0, ...sections.map(bounded)]; // biome-ignore format: two cases
  return starts.map((from, i) =>
    fromNode(part(n, axis, from, Math.max(starts[i + 1] ?? size, from))),
  );
}

// --- helpers -------------------------------------------------------------------------------------

const unbatched = (x: Tensor): Tensor => fromNode(g.reshape(x.node, x.shape.slice(1)));

function pairOf(op: string, value: Pair, least: number): readonly [number, number] {
  const both = typeof value === "number" ? ([value, value] as const) : value;
  if (both.length !== 2 || !both.every((v) => Number.isInteger(v) && v >= least))
    throw new ArgumentError(describe(op, `integers of at least ${least}`, JSON.stringify(value)));
  return both;
}

function patches(
  op: string,
  kernelSize: Pair,
  { dilation = 1, padding = 0, stride = 1 }: PatchOptions,
) {
  const [kernel, spread, apart] = [kernelSize, dilation, stride].map((v) => pairOf(op, v, 1));
  const edge = pairOf(op, padding, 0);
  /** The number of patches along each axis of a picture. */
  const counts = (size: readonly number[]): number[] =>
    size.map((d, i) => {
      const count = Math.floor((d + 2 * edge[i] - spread[i] * (kernel[i] - 1) - 1) / apart[i]) + 1;
      if (count < 1)
        throw new ShapeError(
          describe(op, `a patch of ${kernel.join("×")} to fit`, `axes ${size.join("×")}`),
        );
      return count;
    });
  return { kernel, dilation: spread, stride: apart, padding: edge, counts };
}
