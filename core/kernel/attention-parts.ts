/**
 * @file A group that is attention, taken apart: its operands, which are read where a kernel needs them (so views and cheap
 * element-wise work before it cost no kernel of their own), the results that somebody needs, and its sizes.
 *
 * Letters: B batch, H heads, K heads of keys and values, G = H / K, L queries, S keys, E width of queries and keys, V of values.
 */
import type { Node } from "../graph/node.ts";
import type { Attention, Region } from "../graph/primitives.ts";
import type { Group } from "../schedule/group.ts";
import { type Cond, type Index, idiv, num, simplifyCond } from "../schedule/symbolic.ts";
import type { Evaluator } from "./evaluate.ts";
import {
  constValue,
  type Kernel,
  narrow,
  op,
  type Stmt,
  type Value,
  type ValueOp,
  widen,
} from "./ir.ts";
import type { Operand } from "./operand.ts";

export interface Sizes {
  readonly batch: number;
  readonly heads: number;
  readonly shared: number;
  readonly queries: number;
  readonly keys: number;
  readonly width: number;
  readonly values: number;
}

export function sizesOf(
  q: Pick<Node, "shape">,
  k: Pick<Node, "shape">,
  v: Pick<Node, "shape">,
): Sizes {
  const [batch, heads, queries, width] = q.shape;
  return { batch, heads, shared: k.shape[1], queries, keys: k.shape[2], width, values: v.shape[3] };
}

/** The sizes of a region that is attention. */
export const sizesOfRegion = ({ body: { params } }: Region): Sizes =>
  sizesOf(params[0], params[1], params[2]);

/** Largest width that registers and workgroup memory are laid out for. */
const maxWidth = 256;

/** Whether kernels take these widths. The lanes of stores run along them, so they need more than one element. */
export function fitsKernels(region: Region): boolean {
  const { width, values } = sizesOfRegion(region);
  return [width, values].every((n) => n >= 2 && n <= maxWidth);
}

export interface Parts {
  readonly attention: Attention;
  readonly sizes: Sizes;
  readonly q: Node;
  readonly k: Node;
  readonly v: Node;
  /** backward: the output's cotangent, and per row the log-sum-exp and Σ dO·output. */
  readonly ct: Node;
  readonly lse: Node;
  readonly delta: Node;
  readonly mask: Node | null;
  /** The results in their order; null where nobody needs one. */
  readonly results: readonly (Node | null)[];
}

export function partsOf(group: Group): Parts {
  const [first] = group.members.keys();
  const region = first as Node<"region">;
  const attention = region.attrs.region.attention!;
  const [q, k, v, ...rest] = region.src;
  const backward = attention.pass === "backward";
  const [ct, lse, delta] = backward ? rest : [];
  const mask = rest[backward ? 3 : 0] ?? null;
  const stored = [...group.stores.keys()] as Node<"project">[];
  const results = region.attrs.region.body.results.map(
    (_, i) => stored.find((n) => n.attrs.index === i) ?? null,
  );
  return { attention, sizes: sizesOf(q, k, v), q, k, v, ct, lse, delta, mask, results };
}

/** Recognisable in a report: attention_pass_BxHxLxSxE. */
export function attentionName({ attention: { pass, causal }, sizes }: Parts): string {
  const { batch, heads, queries, keys, width } = sizes;
  const kind = causal ? `${pass}_causal` : pass;
  return `attention_${kind}_${batch}x${heads}x${queries}x${keys}x${width}`;
}

/** Floating-point operations: two per multiplication of the products, and about ten for an exponential. */
export function flopsOf({ attention, sizes }: Parts): number {
  const { batch, heads, queries, keys, width, values } = sizes;
  const seen = attention.causal ? Math.min(queries, keys) / 2 / keys : 1;
  const perScore =
    attention.pass === "forward" ? 2 * (width + values) + 10 : 6 * width + 4 * values + 10;
  return Math.round(batch * heads * queries * keys * seen * perScore);
}

/** The value of `n` at `index`, halves as f32, with the statements that it needs; 0 where an entry of `bounds` is negative. */
export function read(ev: Evaluator, n: Node, index: readonly Index[], bounds: Cond = []): Operand {
  const mask = simplifyCond(bounds);
  if (mask === false) return { stmts: [], value: widen(constValue(n.dtype, 0)) };
  ev.push([]);
  const value = widen(ev.evaluate(n, index, mask).value);
  const { stmts } = ev.pop();
  if (mask.length === 0) return { stmts, value };
  const zero = constValue(value.dtype, 0);
  return { stmts, value: { k: "select", dtype: value.dtype, cond: mask, a: value, b: zero } };
}

/** The head of keys that a head of queries reads. */
export const headOfKeys = (h: Index, heads: number, shared: number): Index =>
  idiv(h, heads / shared);

/** Where a broadcast operand is read. */
export const broadcast = (n: Node, index: readonly Index[]): Index[] =>
  index.map((x, i) => (n.shape[i] === 1 ? num(0) : x));

/** Stores a result, if somebody needs it. */
export const write = (
  ev: Evaluator,
  n: Node | null,
  index: readonly Index[],
  value: Value,
  mask: Cond = [],
): Stmt[] => (n ? [ev.store(n, index, narrow(value, n.dtype), mask)] : []);

// --- values -----------------------------------------------------------------------------------------------------------

export type Body = Pick<Kernel, "range" | "body">;

export const f32 = (name: ValueOp, ...args: Value[]): Value => op(name, "f32", ...args);
export const number = (value: number): Value => constValue("f32", value);
export const isLowest = (x: Value): Value => op("eq", "bool", x, number(-Infinity));
export const isZero = (x: Value): Value => op("eq", "bool", x, number(0));
/** An element of scratch. */
export const get = (local: string, index: Index): Value => ({
  k: "localLoad",
  dtype: "f32",
  local,
  index,
});
export const put = (local: string, index: Index, value: Value): Stmt => ({
  k: "localStore",
  local,
  index,
  value,
});
