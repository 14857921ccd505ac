/** @file Moving tensors between dtypes and devices. */
import { type DType, dtypes } from "../dtype.ts";
import { ArgumentError, describe } from "../errors.ts";
import * as g from "../graph/build.ts";
import type { DeviceName } from "../graph/node.ts";
import { fromNode, type Tensor, toDevice } from "../tensor.ts";
import { nodeOf } from "./promotion.ts";

/**
 * In another dtype: floats truncate towards zero, anything but 0 is true. The same dtype gives the
 * same value.
 */
export function to(x: Tensor, dtype: DType): Tensor;
/** A copy on another device, without gradient history; x itself if it is there. */
export function to(x: Tensor, device: DeviceName): Promise<Tensor>;
export function to(x: Tensor, target: DType | DeviceName): Tensor | Promise<Tensor> {
  if (target in dtypes) return fromNode(g.cast(nodeOf("to", x), target as DType));
  if (target !== "webgpu" && target !== "wasm" && target !== "reference")
    throw new ArgumentError(
      describe(
        "to",
        `a dtype (${Object.keys(dtypes).join(", ")}) or a device (webgpu, wasm, reference)`,
        `"${String(target)}"`,
      ),
    );
  return toDevice(x, target);
}
