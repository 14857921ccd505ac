/**
 * @file Rewrites which buffers a kernel names: two that are one storage become one (an update in place), several small
 * ones become parts of one packed buffer, where a device binds fewer than a kernel has, those that nobody reads vanish,
 * and a batch makes them larger.
 */
import { type DType, dtypes } from "../dtype.ts";
import { type Index, iadd, idiv, imod, imul, ivar, num } from "../schedule/symbolic.ts";
import type { BufferInfo, Kernel, Stmt, Value } from "./ir.ts";
import { mapIndices } from "./loops.ts";

/** Where a buffer went: another number, its elements from `offset` on. */
interface Moved {
  readonly buffer: number;
  readonly offset: Index;
}

/** A kernel that touches other buffers: `to[i]` is where buffer i went. */
function rebind(kernel: Kernel, buffers: readonly BufferInfo[], to: readonly Moved[]): Kernel {
  const at = (x: Index, { offset }: Moved): Index => iadd(x, offset);
  // Printers share equal values by identity, which must survive.
  const known = new Map<Value, Value>();
  const value = (v: Value): Value => {
    let made = known.get(v);
    if (!made) known.set(v, (made = change(v)));
    return made;
  };
  const change = (v: Value): Value => {
    switch (v.k) {
      case "load":
        return { ...v, buffer: to[v.buffer].buffer, index: at(v.index, to[v.buffer]) };
      case "select":
        return { ...v, a: value(v.a), b: value(v.b) };
      case "op":
      case "threefry":
        return { ...v, args: v.args.map(value) } as Value;
      default:
        return v;
    }
  };
  const statement = (s: Stmt): Stmt => {
    switch (s.k) {
      case "loop":
      case "if":
        return { ...s, body: s.body.map(statement) };
      case "let":
      case "position":
      case "localStore":
        return { ...s, value: value(s.value) };
      case "update":
        return { ...s, value: value(s.value), ...(s.times && { times: value(s.times) }) };
      case "store":
      case "storeAdd": {
        const moved = to[s.buffer];
        return {
          ...s,
          buffer: moved.buffer,
          index: at(s.index, moved),
          value: value(s.value),
        };
      }
      default:
        return s;
    }
  };
  return { ...kernel, buffers, body: kernel.body.map(statement) };
}

export interface Merged {
  readonly kernel: Kernel;
  /** Which of the old buffers each new one is. */
  readonly kept: readonly number[];
}

/** Buffer `from` is the same storage as `into`: reads of the one become reads of the other. */
export function mergeBuffers(kernel: Kernel, from: number, into: number): Merged {
  const kept = kernel.buffers.map((_, i) => i).filter((i) => i !== from);
  const buffers = kept.map(
    (i): BufferInfo =>
      i === into ? { ...kernel.buffers[i], access: "readwrite" } : kernel.buffers[i],
  );
  const to = kernel.buffers.map((_, i) => ({
    buffer: kept.indexOf(i === from ? into : i),
    offset: num(0),
  }));
  return { kernel: rebind(kernel, buffers, to), kept };
}

/** Without buffers that are only written: what would be stored there is not. */
export function dropBuffers(kernel: Kernel, dropped: ReadonlySet<number>): Kernel {
  if (dropped.size === 0) return kernel;
  const needed = (body: readonly Stmt[]): Stmt[] =>
    body.flatMap((s): Stmt[] => {
      if (s.k === "loop" || s.k === "if") return [{ ...s, body: needed(s.body) }];
      return s.k === "store" && dropped.has(s.buffer) ? [] : [s];
    });
  const kept = [...kernel.buffers.keys()].filter((i) => !dropped.has(i));
  const to = kernel.buffers.map((_, i) => ({ buffer: kept.indexOf(i), offset: num(0) }));
  const buffers = kept.map((i) => kernel.buffers[i]);
  return rebind({ ...kernel, body: needed(kernel.body) }, buffers, to);
}

/** The kernel once per element of a batch; the buffers that `which` marks hold the elements one after the other. */
export function batchKernel(kernel: Kernel, which: readonly boolean[], size: number): Kernel {
  const { range, buffers } = kernel;
  const extent = range.extent * size;
  // Nested batches each bring a variable.
  const name = `${range.var}b`;
  const both = ivar(name, extent);
  const element = idiv(both, range.extent);
  const body = mapIndices(kernel.body, new Map([[range.var, imod(both, range.extent)]]));
  const to = buffers.map((b, buffer) => ({
    buffer,
    offset: which[buffer] ? imul(element, b.size) : num(0),
  }));
  return rebind(
    { ...kernel, range: { var: name, extent }, body, flops: size * kernel.flops },
    buffers.map((b, i) => (which[i] ? { ...b, size: b.size * size } : b)),
    to,
  );
}

/** Old buffers that lie in one new buffer, each from an element offset on. */
export interface Pack {
  readonly dtype: DType;
  readonly size: number;
  readonly access: "read" | "readwrite";
  readonly parts: readonly { readonly buffer: number; readonly offset: number }[];
}

export interface Packed {
  readonly kernel: Kernel;
  /** What each new buffer is: one of the old ones, or a pack of several. */
  readonly buffers: readonly (number | Pack)[];
}

/**
 * A kernel with at most `limit` buffers: buffers of one dtype that are only read are packed into one, the smallest first,
 * then buffers that are written. Packs are copied in before the kernel runs, written ones out after it. null: too many
 * dtypes for that.
 */
export function packBuffers(kernel: Kernel, limit: number): Packed | null {
  const packs: number[][] = [];
  const single = new Set(kernel.buffers.keys());
  const count = () => single.size + packs.length;
  for (const written of [false, true]) {
    // Whichever dtype has the most candidates gives the most room for the fewest copies.
    for (;;) {
      if (count() <= limit) break;
      const groups = new Map<DType, number[]>();
      for (const i of single) {
        const { dtype, access } = kernel.buffers[i];
        if ((access !== "read") !== written) continue;
        if (!groups.has(dtype)) groups.set(dtype, []);
        groups.get(dtype)!.push(i);
      }
      const best = [...groups.values()].reduce((a, b) => (b.length > a.length ? b : a), []);
      if (best.length < 2) break;
      best.sort((a, b) => kernel.buffers[a].size - kernel.buffers[b].size || a - b);
      const pack = best.slice(0, count() - limit + 1);
      for (const i of pack) single.delete(i);
      packs.push(pack);
    }
  }
  if (count() > limit) return null;

  const order: (number | Pack)[] = [...single];
  const buffers = [...single].map((i) => kernel.buffers[i]);
  const to = new Array<Moved>(kernel.buffers.length);
  for (const [n, i] of [...single].entries()) to[i] = { buffer: n, offset: num(0) };
  for (const pack of packs) {
    const { dtype, access: kind } = kernel.buffers[pack[0]];
    // Offsets keep vector accesses aligned, and copies are in whole words.
    const step = 16 / dtypes[dtype].bytes;
    let size = 0;
    const parts = pack.map((buffer) => {
      const offset = size;
      size += Math.ceil(kernel.buffers[buffer].size / step) * step;
      to[buffer] = { buffer: buffers.length, offset: num(offset) };
      return { buffer, offset };
    });
    const access = kind === "read" ? "read" : "readwrite";
    buffers.push({ dtype, size, access });
    order.push({ dtype, size, access, parts });
  }
  return { kernel: rebind(kernel, buffers, to), buffers: order };
}
