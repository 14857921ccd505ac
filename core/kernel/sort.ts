/**
 * @file Sorting as a kernel: the stable permutation of each line along an axis. Both ways have a control flow that does
 * not depend on the data, as the language demands: a bitonic network over several lines at once (sort-network.ts) for short
 * lines and for the first few of long ones, counting digits (sort-radix.ts) for other long ones and for one alone.
 */
import type { Kernel } from "./ir.ts";
import type { SortSpec } from "./sort-keys.ts";
import { networkSelect, networkSort } from "./sort-network.ts";
import { radixSort } from "./sort-radix.ts";

/** A network takes (log₂ n)² / 4 exchanges per element, digits a fixed number of steps and the counting. */
const longestNetwork = 1024;

export function sortKernel(spec: SortSpec): Kernel {
  const lines = spec.outer * spec.inner;
  const short = spec.count <= longestNetwork && (lines >= 4 || spec.count <= 32);
  const { extent, body } =
    spec.first < spec.count ? networkSelect(spec) : short ? networkSort(spec) : radixSort(spec);
  return {
    name: "sort",
    kind: "sort",
    buffers: spec.buffers,
    scalars: spec.scalars,
    range: { var: "task", extent },
    body,
    flops: lines * spec.count * 2 * Math.ceil(Math.log2(spec.count + 1)),
  };
}
