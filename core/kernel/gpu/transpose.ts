/**
 * @file Maps that read across the grain: some operand is contiguous along another axis than the results. Read directly,
 * each invocation of a warp would fetch a memory transaction of its own. Instead a workgroup reads tiles of 32 × 32
 * along the operand's axis into workgroup memory, and computes and writes along the results'. Rows of a tile are 33
 * apart, so that the invocations of a warp meet different banks both ways (Ruetsch & Micikevicius 2009, "Optimizing
 * Matrix Transpose in CUDA"); four elements per invocation keep both sides vec4.
 */
import { dtypes } from "../../dtype.ts";
import {
  affineIn,
  delinearize,
  freeVars,
  type Index,
  iadd,
  idiv,
  imod,
  imul,
  ivar,
  num,
  substitute,
} from "../../schedule/symbolic.ts";
import { type Stmt, serial, type Value } from "../ir.ts";
import { type Loop, laneOf, loopEnv, mapIndices } from "../loops.ts";
import type { Nest } from "../nest.ts";
import { type Access, elementEnv, lane, laneAccess, lanes, overLanes } from "./lanes.ts";
import { below, floorPow2, groupVar, guarded, threadVar } from "./stage.ts";
import type { GpuTarget } from "./target.ts";

const side = 32;
const pitch = side + 1;
/** Axes shorter than this would leave most of a tile empty; steps below this still share transactions. */
const worthwhile = 16;

type Load = Extract<Value, { k: "load" }>;

/** The tiled kernel of a map whose `element` reads some operands across the grain; null if it reads none. */
export function throughTile(
  nest: Nest,
  element: readonly Stmt[],
  accesses: readonly Access[],
  target: GpuTarget,
): { groups: number; threads: number; body: Stmt[] } | null {
  const along = nest.lanes;
  if (!along || along.extent < worthwhile) return null;
  const found = crossing(nest, along, element);
  if (!found) return null;
  const { across, loads } = found;
  const stores = accesses.filter((a) => a.store);
  const wholeStores = vectorsAlong(along, stores);
  // Bytes one by one are atomic operations: worse than reading across.
  if (!wholeStores && stores.some((a) => a.bytes < 4)) return null;
  const bytes = [...loads.values()].reduce((n, v) => n + side * pitch * dtypes[v.dtype].bytes, 0);
  if (bytes > target.sharedBytes) return null;

  const others = nest.kept.filter((loop) => loop !== along && loop !== across);
  const blocks = [...others.map((l) => l.extent), tiles(across), tiles(along)];
  const groups = blocks.reduce((n, d) => n * d, 1);
  const threads = floorPow2(Math.min(256, target.invocations));
  const place = delinearize(ivar(groupVar, groups), blocks);
  const [a0, b0] = [imul(place[blocks.length - 1], side), imul(place[blocks.length - 2], side)];
  const outer = others.flatMap((loop, i) => [...loopEnv(loop, place[i])]);

  /** Walks a tile with neighbouring invocations along `fast`; `body` gets the place within the tile. */
  const walk = (
    fast: Loop,
    vectors: boolean,
    body: (fast: Index, slow: Index) => Stmt[],
  ): readonly Stmt[] => {
    const per = vectors ? lanes : 1;
    const columns = side / per;
    const rows = Math.min(side, threads / columns);
    const passes = side / rows;
    const t = ivar(threadVar, threads);
    const base = imul(imod(t, columns), per);
    const slow = iadd(idiv(t, columns), imul(ivar("j", passes), rows));
    const [fast0, slow0] = fast === along ? [a0, b0] : [b0, a0];
    const other = fast === along ? across : along;
    const inside = [below(iadd(fast0, base), fast.extent), below(iadd(slow0, slow), other.extent)];
    const stmts = body(vectors ? iadd(base, lane) : base, slow);
    const lanesLoop: Stmt[] = vectors ? [overLanes(stmts)] : stmts;
    const pass = guarded(inside, lanesLoop);
    const scoped = vectors || pass !== lanesLoop;
    if (passes === 1 && scoped) return pass;
    return [serial("j", num(passes), pass, passes)];
  };
  const envAt = (a: Index, b: Index): Map<string, Index> =>
    new Map([...outer, ...loopEnv(along, iadd(a0, a)), ...loopEnv(across, iadd(b0, b))]);
  const tileAt = (a: Index, b: Index): Index => iadd(imul(a, pitch), b);
  const names = new Map([...loads.keys()].map((name, i) => [name, `tile${i}`] as const));

  const fill = walk(across, vectorsAlong(across, [...loads.values()]), (b, a) => {
    const stores = [...loads].map(
      ([name, value]): Stmt => ({
        k: "localStore",
        local: names.get(name)!,
        index: num(0),
        value,
      }),
    );
    return mapIndices(stores, envAt(a, b)).map((s) => ({ ...s, index: tileAt(a, b) }) as Stmt);
  });
  const compute = walk(along, wholeStores, (a, b) => {
    const rest = mapIndices(
      element.filter((s) => !(s.k === "let" && loads.has(s.name))),
      envAt(a, b),
    );
    const reads = [...loads].map(
      ([name, { dtype }]): Stmt => ({
        k: "let",
        name,
        value: { k: "localLoad", dtype, local: names.get(name)!, index: tileAt(a, b) },
      }),
    );
    return [...reads, ...rest];
  });
  const shared = [...loads].map(
    ([name, { dtype }]): Stmt => ({
      k: "shared",
      name: names.get(name)!,
      dtype,
      size: side * pitch,
    }),
  );
  return { groups, threads, body: [...shared, ...fill, { k: "barrier" }, ...compute] };
}

const tiles = (loop: Loop): number => Math.ceil(loop.extent / side);

/** The loop along which most crossing loads are contiguous, and those loads by the name of their `let`. */
function crossing(
  nest: Nest,
  along: Loop,
  element: readonly Stmt[],
): { across: Loop; loads: Map<string, Load> } | null {
  const axes = new Set(nest.kept.flatMap((loop) => loop.axes.map((a) => a.name)));
  const found = new Map<Loop, Map<string, Load>>();
  for (const s of element) {
    if (s.k !== "let" || s.value.k !== "load" || s.value.mask) continue;
    const { index } = s.value;
    if (Math.abs(affineIn(index, laneOf(along)) ?? 0) < worthwhile) continue;
    if ([...freeVars(index)].some((v) => !axes.has(v))) continue;
    const across = nest.kept.find(
      (loop) => loop.extent >= worthwhile && affineIn(index, laneOf(loop)) === 1,
    );
    if (!across) continue;
    const list = found.get(across);
    if (list) list.set(s.name, s.value);
    else found.set(across, new Map([[s.name, s.value]]));
  }
  const [best] = [...found].sort((a, b) => b[1].size - a[1].size);
  return best ? { across: best[0], loads: best[1] } : null;
}

/** Are groups of four elements along the loop vec4s in all of these accesses? */
function vectorsAlong(loop: Loop, accesses: readonly { readonly index: Index }[]): boolean {
  if (loop.extent % lanes !== 0) return false;
  const env = elementEnv([loop], iadd(imul(ivar("q", loop.extent / lanes), lanes), lane));
  return accesses.every((x) => laneAccess(substitute(x.index, env)) === "vector");
}
