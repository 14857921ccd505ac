/** @file Attention in all its shapes, as graphs: forward with the log-sum-exp, and the three gradients. */
import { type DType, dtypes } from "../../core/dtype.ts";
import type { Node } from "../../core/graph/node.ts";
import { placeholder } from "../../core/graph/primitives.ts";
import { attentionRegion } from "../../core/ops/attention-region.ts";
import { numel } from "../../core/shape.ts";
import { gradients } from "../../core/transform/vjp.ts";
import { generator, type RandomGraph } from "./graphs.ts";

export interface AttentionCase {
  readonly batch?: number;
  readonly heads?: number;
  readonly shared?: number;
  readonly queries: number;
  readonly keys: number;
  readonly width: number;
  readonly values?: number;
  readonly dtype?: DType;
  readonly causal?: boolean;
  /** Kind and which axes repeat; every third row of a mask sees nothing. */
  readonly mask?: { readonly dtype: DType; readonly shape: readonly number[] };
}

/** All claims, for backends whose own choice is not what is tested. */
export const claimsAttention = ({ attention }: { readonly attention?: unknown }): boolean =>
  attention !== undefined;

export const nameOf = (c: AttentionCase): string =>
  [
    `${c.batch ?? 1}x${c.heads ?? 1}${c.shared ? `/${c.shared}` : ""}x${c.queries}·${c.keys}x${c.width}`,
    c.values ?? "",
    c.dtype ?? "",
    c.causal ? "causal" : "",
    c.mask ? `${c.mask.dtype}[${c.mask.shape}]` : "",
  ]
    .filter(String)
    .join(" ");

/** Outputs: output, lse, and with `backward` dq, dk, dv. */
export function attentionGraph(c: AttentionCase, seed: number, backward = true): RandomGraph {
  const { batch = 1, heads = 1, shared = heads, queries, keys, width, values = width } = c;
  const { dtype = "f32", causal = false, mask } = c;
  const leaf = (shape: readonly number[], type: DType = dtype) => placeholder(type, shape, "wasm");
  const q = leaf([batch, heads, queries, width]);
  const k = leaf([batch, shared, keys, width]);
  const v = leaf([batch, shared, keys, values]);
  const ct = leaf([batch, heads, queries, values]);
  const m = mask && leaf(mask.shape, mask.dtype);
  const args: Node[] = [q, k, v, ...(m ? [m] : [])];
  const found = attentionRegion(args, { scale: 1 / Math.sqrt(width), causal });
  const back = backward ? gradients([found[0]], [ct], [q, k, v]).map((g) => g!) : [];
  const inputs = [q, k, v, ...(backward ? [ct] : []), ...(m ? [m] : [])];
  const next = generator(seed);
  const data = inputs.map((p) => {
    const data = new dtypes[p.dtype].array(numel(p.shape));
    const columns = p.shape[3];
    for (let i = 0; i < data.length; i++) {
      const hidden = p === m && Math.floor(i / columns) % 3 === 2;
      if (p.dtype === "bool") data[i] = hidden ? 0 : Number(next() < 0.6);
      else if (p === m) data[i] = hidden || next() < 0.3 ? -Infinity : Math.round(next() * 16) / 8;
      else data[i] = Math.round((next() * 4 - 2) * 64) / 64;
    }
    return data;
  });
  return { inputs, data, randoms: [], words: new Uint32Array(0), outputs: [...found, ...back] };
}

/** Every kind of mask, tails of every tile, shared heads, widths of all remainders. */
export const attentionCases: readonly AttentionCase[] = [
  { queries: 1, keys: 1, width: 2 },
  { queries: 5, keys: 3, width: 2 },
  { queries: 7, keys: 13, width: 8, values: 5 },
  { queries: 16, keys: 9, width: 3, causal: true },
  { queries: 9, keys: 25, width: 4, causal: true },
  { batch: 2, heads: 3, queries: 13, keys: 13, width: 7, causal: true },
  { batch: 2, heads: 4, shared: 2, queries: 11, keys: 18, width: 6, values: 9 },
  { heads: 4, shared: 1, queries: 10, keys: 10, width: 16, causal: true },
  { queries: 17, keys: 15, width: 5, mask: { dtype: "bool", shape: [1, 1, 17, 15] } },
  {
    batch: 2,
    heads: 2,
    queries: 6,
    keys: 12,
    width: 4,
    mask: { dtype: "bool", shape: [2, 1, 1, 12] },
  },
  {
    batch: 2,
    heads: 2,
    queries: 12,
    keys: 7,
    width: 4,
    mask: { dtype: "f32", shape: [1, 2, 12, 7] },
  },
  {
    heads: 4,
    shared: 2,
    queries: 6,
    keys: 6,
    width: 4,
    mask: { dtype: "f32", shape: [1, 4, 6, 6] },
  },
  { heads: 2, queries: 6, keys: 9, width: 4, dtype: "f16", causal: true },
  {
    heads: 2,
    queries: 9,
    keys: 6,
    width: 12,
    dtype: "bf16",
    mask: { dtype: "f16", shape: [1, 1, 9, 6] },
  },
];
