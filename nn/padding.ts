/**
 * @file Padding as modules, over 1, 2 or 3 spatial axes. The amounts are one number for all sides or pairs (before,
 * after) from the last axis backwards: [left, right, top, bottom, front, back], as PyTorch's. Negative ones crop.
 */
import { ArgumentError, describe, ShapeError } from "../core/errors.ts";
import { type PadMode, pad, type Tensor } from "../core/index.ts";
import { formatShape } from "../core/shape.ts";
import { moduleOf } from "./functional-module.ts";

/** One number for all sides, or a pair per axis, the last axis first. */
export type Padding = number | readonly number[];

/** x [N, C, S…] or [C, S…] with `rank` spatial axes. */
function padded(x: Tensor, rank: number, padding: Padding, fill: number | PadMode): Tensor {
  const amounts =
    typeof padding === "number" ? Array<number>(2 * rank).fill(padding) : [...padding];
  if (amounts.length !== 2 * rank)
    throw new ArgumentError(
      describe("padding", `one number or ${2 * rank}`, JSON.stringify(padding)),
    );
  // Constants go around anything; what continues a picture must know which axes are the picture's.
  if (x.ndim < rank || (typeof fill !== "number" && (x.ndim < rank + 1 || x.ndim > rank + 2)))
    throw new ShapeError(
      describe("padding", `[N, C, …] or [C, …] with ${rank} spatial axes`, formatShape(x.shape)),
    );
  return pad(x, amounts, fill);
}

const filledWith = (rank: number, fill: number | PadMode) =>
  moduleOf((x, padding: Padding) => padded(x, rank, padding, fill), "padding");
const constantPad = (rank: number) =>
  moduleOf(
    (x, padding: Padding, value: number) => padded(x, rank, padding, value),
    "padding",
    "value",
  );

export class ZeroPad1d extends filledWith(1, 0) {}
export class ZeroPad2d extends filledWith(2, 0) {}
export class ZeroPad3d extends filledWith(3, 0) {}

export class ConstantPad1d extends constantPad(1) {}
export class ConstantPad2d extends constantPad(2) {}
export class ConstantPad3d extends constantPad(3) {}

/** Mirrored at the edge elements. */
export class ReflectionPad1d extends filledWith(1, "reflect") {}
/** Mirrored at the edge elements. */
export class ReflectionPad2d extends filledWith(2, "reflect") {}
/** Mirrored at the edge elements. */
export class ReflectionPad3d extends filledWith(3, "reflect") {}

/** The edge elements again. */
export class ReplicationPad1d extends filledWith(1, "replicate") {}
/** The edge elements again. */
export class ReplicationPad2d extends filledWith(2, "replicate") {}
/** The edge elements again. */
export class ReplicationPad3d extends filledWith(3, "replicate") {}

/** From the other end again. */
export class CircularPad1d extends filledWith(1, "circular") {}
/** From the other end again. */
export class CircularPad2d extends filledWith(2, "circular") {}
/** From the other end again. */
export class CircularPad3d extends filledWith(3, "circular") {}
