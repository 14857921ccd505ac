/** @file Graphs around one matrix product, with operands and epilogues of every kind, for tests of its GPU schedules. */
import { type DType, dtypes, isFloat } from "../../core/dtype.ts";
import * as g from "../../core/graph/build.ts";
import type { Node } from "../../core/graph/node.ts";
import { constant, placeholder } from "../../core/graph/primitives.ts";
import { checkKernel } from "../../core/kernel/check.ts";
import { lowerForGpu } from "../../core/kernel/gpu/lower.ts";
import { lowerMatmul } from "../../core/kernel/gpu/matmul.ts";
import type { Choose } from "../../core/kernel/gpu/matmul-tile.ts";
import type { GpuTarget } from "../../core/kernel/gpu/target.ts";
import { numel } from "../../core/shape.ts";
import { generator, type RandomGraph } from "./graphs.ts";
import { gpuTarget, type Lower } from "./interpreted.ts";

/** How an operand [batch, rows, columns] lies in memory, or what it is computed from. */
export type Layout =
  | "plain"
  | "transposed"
  | "shared"
  | "computed"
  | "cast"
  | "strided"
  | "padded"
  | "mixed";
export type Epilogue = "none" | "bias" | "activation" | "residual" | "long" | "two" | "update";

export interface ProductCase {
  readonly batch?: number;
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly dtype?: DType;
  readonly a?: Layout;
  readonly b?: Layout;
  readonly epilogue?: Epilogue;
}

export const layouts: readonly Layout[] = [
  "plain",
  "transposed",
  "shared",
  "computed",
  "cast",
  "strided",
  "padded",
  "mixed",
];
export const epilogues: readonly Epilogue[] = [
  "none",
  "bias",
  "activation",
  "residual",
  "long",
  "two",
  "update",
];

const leaf = (shape: readonly number[], dtype: DType): Node => placeholder(dtype, shape, "wasm");

function operand([batch, x, y]: readonly number[], dtype: DType, layout: Layout): Node {
  switch (layout) {
    case "plain":
      return leaf([batch, x, y], dtype);
    case "transposed":
      return g.permute(leaf([batch, y, x], dtype), [0, 2, 1]);
    case "shared":
      return g.expand(leaf([1, x, y], dtype), [batch, x, y]);
    case "computed": {
      const scale = g.expand(leaf([batch, 1, y], dtype), [batch, x, y]);
      return g.add(g.mul(leaf([batch, x, y], dtype), scale), constant(1, dtype));
    }
    case "cast":
      return g.cast(leaf([batch, x, y], isFloat(dtype) && dtype !== "f32" ? "f32" : "i32"), dtype);
    case "strided":
      return g.slice(leaf([batch, 2 * x, y + 3], dtype), [0, 1, 2], [batch, x, y], [1, 2, 1]);
    case "padded": {
      // With a value that a masked load does not give by itself.
      const inner = leaf([batch, x, Math.max(1, y - 2)], dtype);
      return y > 2 ? g.pad(inner, [0, 0, 1], [0, 0, 1], 3) : inner;
    }
    case "mixed":
      return g.flip(g.permute(leaf([x, y, batch], dtype), [2, 0, 1]), [1]);
  }
}

function outputs(product: Node, epilogue: Epilogue): Node[] {
  const { dtype, shape } = product;
  const [batch, m, n] = shape;
  switch (epilogue) {
    case "none":
      return [product];
    case "bias":
      return [g.add(product, leaf([n], dtype))];
    case "activation":
      return [g.max(g.add(product, leaf([m, 1], dtype)), constant(0, dtype))];
    case "residual":
      return [g.permute(g.add(product, leaf(shape, dtype)), [0, 2, 1])];
    case "long": {
      // Too many statements for a copy per result.
      const [p, q] = [leaf(shape, dtype), leaf([batch, 1, n], dtype)];
      let y = product;
      for (let i = 0; i < 12; i++) y = g.sub(p, g.mul(y, g.sub(q, constant(i % 3, dtype))));
      return [y];
    }
    case "two":
      return [g.neg(product), g.mul(product, leaf(shape, dtype))];
    case "update": {
      const weights = leaf(shape, dtype);
      return [g.assign(weights, g.sub(weights, product))];
    }
  }
}

export function productGraph(c: ProductCase, seed = 1): RandomGraph {
  const { batch = 1, m, n, k, dtype = "f32", a = "plain", b = "plain", epilogue = "none" } = c;
  const product = g.dot(operand([batch, m, k], dtype, a), operand([batch, k, n], dtype, b));
  return graphOf(outputs(product, epilogue), seed);
}

/** Small integers, whose sums are exact in any order. */
export function graphOf(roots: readonly Node[], seed = 1): RandomGraph {
  const inputs: Node<"placeholder">[] = [];
  const seen = new Set<Node>();
  const stack = [...roots];
  for (let n = stack.pop(); n; n = stack.pop()) {
    if (seen.has(n)) continue;
    seen.add(n);
    if (n.op === "placeholder") inputs.push(n as Node<"placeholder">);
    stack.push(...n.src);
  }
  const next = generator(seed);
  const data = inputs.map((p) => {
    const values = new dtypes[p.dtype].array(numel(p.shape));
    const low = isFloat(p.dtype) || dtypes[p.dtype].signed ? 2 : 0;
    for (let i = 0; i < values.length; i++) values[i] = Math.floor(next() * 5) - low;
    return values;
  });
  return { inputs, data, randoms: [], words: new Uint32Array(0), outputs: [...roots] };
}

/** As lowerForGpu, with products in forms of the test's choice. */
export const withForms =
  (choose?: Choose, target: Partial<GpuTarget> = {}): Lower =>
  (group, inMemory) => {
    const whole = { ...gpuTarget, ...target };
    const lowered =
      group.kind === "matmul"
        ? lowerMatmul(group, inMemory, whole, choose)
        : lowerForGpu(group, inMemory, whole);
    for (const { kernel } of lowered.stages) checkKernel(kernel, "webgpu");
    return lowered;
  };
