/**
 * @file What the arrays of a kernel are made of: storage buffers, workgroup arrays and private arrays get an element type from all
 * accesses to them.
 *
 * An access of a vector loop of 4 lanes whose positions are provably 4k … 4k+3 is one vec4 (or one word of bytes); an array of
 * vec4 pays where there is such an access, and no store of single components, which may write all four of them.
 */
import { type DType, isHalf } from "../../dtype.ts";
import type { GpuTarget } from "../../kernel/gpu/target.ts";
import type { Kernel, Stmt, Value } from "../../kernel/ir.ts";
import {
  affineIn,
  type Cond,
  freeVars,
  type Index,
  isub,
  ivar,
  num,
} from "../../schedule/symbolic.ts";
import { register, typeName } from "./wgsl-expr.ts";

/** plain: as registers; native: array<f16>; bytes, halves: packed in u32. */
export type Layout = "plain" | "native" | "bytes" | "halves";

export interface ArrayInfo {
  readonly name: string;
  readonly dtype: DType;
  readonly size: number;
  readonly layout: Layout;
  /** Elements are vec4 (of halves: vec2u); of bytes always one word. */
  readonly wide: boolean;
  /** Words are written in part. */
  readonly atomic: boolean;
  /** Workgroup memory that matrices use: a pointer to its single elements, where those are not elements of the array. */
  readonly scalars?: string;
}

const gcd = (a: number, b: number): number => (b === 0 ? Math.abs(a) : gcd(b, a % b));

/** x is a multiple of n for all values of its variables. */
function multipleOf(x: Index, n: number): boolean {
  if (x.constant % n !== 0) return false;
  return x.terms.every(({ atom, coef }) => {
    const rest = n / gcd(n, coef);
    if (rest === 1) return true;
    if (atom.k === "min") return multipleOf(atom.a, rest) && multipleOf(atom.b, rest);
    return atom.k === "mod" && atom.by % rest === 0 && multipleOf(atom.of, rest);
  });
}

export interface LaneInfo {
  readonly name: string;
  readonly width: number;
  /** Names that differ by lane besides the lane's variable. */
  readonly varying: ReadonlySet<string>;
}

export const isAligned = (x: Index, lane: LaneInfo | null): boolean =>
  lane !== null &&
  lane.width === 4 &&
  affineIn(x, lane.name) === 1 &&
  ![...freeVars(x)].some((name) => lane.varying.has(name)) &&
  multipleOf(isub(x, ivar(lane.name, lane.width)), 4);

/** The mask's entries that a store of four whole lanes must obey: not the one that keeps it inside a padded buffer. */
export function unpadded(index: Index, mask: Cond | undefined, size: number): Cond {
  const inside = isub(num(size - 1), index).key;
  return (mask ?? []).filter((entry) => entry.key !== inside);
}

const dependsOnLane = (cond: Cond, lane: LaneInfo): boolean =>
  cond.some((x) => [...freeVars(x)].some((n) => n === lane.name || lane.varying.has(n)));

interface Seen {
  wide: boolean;
  narrowStore: boolean;
}

/** Looks at all accesses of a kernel and gives each of its arrays an element type. */
export function planArrays(
  kernel: Kernel,
  target: GpuTarget,
): { buffers: ArrayInfo[]; plan: (s: Stmt) => ArrayInfo } {
  const buffers: Seen[] = kernel.buffers.map(() => ({ wide: false, narrowStore: false }));
  // By declaration: names may come again in another block.
  const declared = new Map<Stmt, Seen>();
  const visit = (body: readonly Stmt[], outer: Map<string, Seen>, lane: LaneInfo | null): void => {
    const names = new Map(outer);
    const varying = new Set(lane?.varying);
    const here = lane && { ...lane, varying };
    const seen = new Set<Value>();
    const load = (v: Value): void => {
      if (seen.has(v)) return;
      seen.add(v);
      if (v.k === "load" && isAligned(v.index, here)) buffers[v.buffer].wide = true;
      else if (v.k === "localLoad" && isAligned(v.index, here)) names.get(v.local)!.wide = true;
      else if (v.k === "op" || v.k === "threefry") v.args.forEach(load);
      else if (v.k === "select") [v.a, v.b].forEach(load);
    };
    const store = (seenAt: Seen, index: Index, mask: Cond | undefined, size: number): void => {
      const rest = unpadded(index, mask, size);
      if (isAligned(index, here) && !dependsOnLane(rest, here!)) seenAt.wide = true;
      else seenAt.narrowStore = true;
    };
    for (const s of body) {
      if ("value" in s) load(s.value);
      if (s.k === "update" && s.times) load(s.times);
      if (s.k === "local" || s.k === "shared") {
        const info = { wide: false, narrowStore: false };
        names.set(s.name, info);
        declared.set(s, info);
      } else if (s.k === "store") {
        store(buffers[s.buffer], s.index, s.mask, kernel.buffers[s.buffer].size);
      } else if (s.k === "storeAdd") {
        store(buffers[s.buffer], s.index, undefined, kernel.buffers[s.buffer].size);
      } else if (s.k === "localStore") store(names.get(s.local)!, s.index, undefined, 0);
      // Whether it really differs by lane is only known when it is printed; assuming so is safe.
      else if (s.k === "position" && lane) varying.add(s.name);
      else if (s.k === "if") visit(s.body, names, here);
      else if (s.k === "loop") {
        const width = vectorWidth(kernel, s);
        visit(s.body, names, width ? { name: s.var, width, varying: new Set() } : here);
      }
    }
  };
  visit(kernel.body, new Map(), null);
  const describe = (
    name: string,
    dtype: DType,
    size: number,
    layout: Layout,
    { wide, narrowStore }: Seen,
    forced = false,
  ): ArrayInfo => {
    const packed = layout === "bytes" || layout === "halves";
    // Storing one component of a vec4 may write all four: neighbours then belong to one invocation or none.
    const vectors = wide && (forced || !narrowStore) && layout !== "bytes";
    return { name, dtype, size, layout, wide: vectors, atomic: packed && narrowStore };
  };
  return {
    buffers: kernel.buffers.map((b, i) =>
      describe(`buf${i}`, b.dtype, b.size, storageLayout(b.dtype, target), buffers[i]),
    ),
    plan: (s) => {
      const { name, dtype, size } = s as Extract<Stmt, { k: "local" | "shared" }>;
      const seen = declared.get(s)!;
      const layout = dtype === "f16" && target.f16 ? "native" : "plain";
      // A private array has no neighbours to disturb.
      const fits = size % 4 === 0;
      return describe(
        name,
        dtype,
        size,
        layout,
        { ...seen, wide: seen.wide && fits },
        s.k === "local",
      );
    },
  };
}

/** Lanes of a vector loop of a GPU kernel; 0 for loops that run one after the other. */
export function vectorWidth(kernel: Kernel, s: Extract<Stmt, { k: "loop" }>): number {
  if (s.mode !== "vector" || !kernel.threads) return 0;
  const { extent } = s;
  return extent.terms.length === 0 && extent.constant >= 2 && extent.constant <= 4
    ? extent.constant
    : 0;
}

function storageLayout(dtype: DType, target: GpuTarget): Layout {
  if (dtype === "f16" && target.f16) return "native";
  if (isHalf(dtype)) return "halves";
  return dtype === "i8" || dtype === "u8" || dtype === "bool" ? "bytes" : "plain";
}

/** The WGSL type of an array's elements. */
export function elementType({ dtype, layout, wide, atomic }: ArrayInfo): string {
  if (layout === "plain") return typeName(register(dtype), wide ? 4 : 1);
  if (layout === "native") return typeName("f16", wide ? 4 : 1);
  if (atomic) return "atomic<u32>";
  return layout === "halves" && wide ? "vec2u" : "u32";
}

/** Bytes of an element of workgroup memory. */
export const elementBytes = ({ layout, wide }: ArrayInfo): number =>
  (layout === "native" ? 2 : 4) * (wide ? 4 : 1);
