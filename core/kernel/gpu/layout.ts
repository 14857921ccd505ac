/**
 * @file How many invocations work on a row of reductions, how many rows a workgroup has, and whether workgroups share rows.
 * The numbers are for GPUs from integrated ones to an H100, which holds 270,000 invocations at once: below about a tenth of
 * that, more invocations per row are worth their combining.
 */
import type { Nest } from "../nest.ts";
import type { RowPlan } from "../phases.ts";
import { extentOf } from "../row.ts";
import { lanes } from "./lanes.ts";
import { ceilPow2, floorPow2, workgroupSize } from "./stage.ts";
import type { GpuTarget } from "./target.ts";

/** threads = rows · width. */
export interface Layout {
  /** Invocations of a workgroup. */
  readonly threads: number;
  /** Rows of a workgroup. */
  readonly rows: number;
  /** Invocations of a workgroup that work on one row. */
  readonly width: number;
  /** Workgroups that work on one row. */
  readonly split: number;
  /** Are the invocations of a row neighbours? Else neighbours are at neighbouring rows. */
  readonly neighbours: boolean;
}

/** What one warp or wave has at least; what a workgroup usually has: see stage.ts. */
const warp = 32;
const usual = 256;
/** Elements of a row per invocation that stay in registers between passes. */
const perInvocation = 16;
/** Invocations that keep a GPU busy. */
const busy = 1 << 15;
/** Columns no longer than this are one invocation's, and longer ones where there are very many. */
const shortColumn = 16;
const manyColumns = 1 << 18;
const longestOfMany = 4096;
/** Longest sum of one invocation: rounding errors grow with it. */
const longest = 1 << 14;
/** Workgroups that a split aims at, below which number of them and above which share of one invocation it pays for one
 *  more kernel, and the share that it leaves. */
const wantedGroups = 512;
const fewGroups = 128;
const largeShare = 128;
const leastShare = 32;

/** null: one invocation per result, or per four neighbouring ones, does it. */
export function chooseLayout(nest: Nest, plan: RowPlan, target: GpuTarget): Layout | null {
  const extent = extentOf(nest.reduced);
  const rows = extentOf(nest.kept);
  if (extent === 1) return null;
  const along = nest.lanes!.reduced;
  if (!along && (extent <= shortColumn || (rows >= manyColumns && extent <= longestOfMany)))
    return null;
  const layout = (along ? alongRows : downColumns)(extent, rows, plan, target);
  return { ...layout, split: splitOf(layout, extent, rows, plan) };
}

type Unsplit = Omit<Layout, "split">;

/** The most invocations that a row should get: more than usual only where its elements then stay in registers. */
function mostFor(extent: number, rows: number, plan: RowPlan, target: GpuTarget): number {
  const all = floorPow2(target.invocations);
  const kept = plan.phases.length > 1 && extent * rows <= perInvocation * all;
  return kept ? all : Math.min(usual, all);
}

function alongRows(extent: number, rows: number, plan: RowPlan, target: GpuTarget): Unsplit {
  const most = mostFor(extent, 1, plan, target);
  // A vec4 each while one warp suffices.
  const small = extent <= 2 * lanes ? 1 : Math.min(warp, ceilPow2(extent / lanes));
  let width = Math.min(most, Math.max(small, ceilPow2(extent / perInvocation)));
  while (rows * width < busy && width < Math.min(most, usual, extent / lanes)) width *= 2;
  const threads = Math.max(width, workgroupSize(rows * width, target));
  return { threads, rows: threads / width, width, neighbours: true };
}

function downColumns(extent: number, rows: number, plan: RowPlan, target: GpuTarget): Unsplit {
  // A transaction's worth of columns. allReduce knows argmax, workgroup memory holds plain values: so argmax takes its
  // rows as neighbours, and coalesces only over 8 columns.
  const argmax = plan.phases.some((p) => p.reductions.some((n) => n.op === "argmax"));
  const columns = Math.min(argmax ? 2 * warp : warp, ceilPow2(rows));
  const most = mostFor(extent, columns, plan, target);
  const reductions = plan.phases.reduce((n, p) => n + p.reductions.length, 0);
  const fitting = floorPow2(target.sharedBytes / (4 * reductions));
  const wide = Math.min(most, fitting) / columns;
  const width = Math.max(1, Math.min(wide, ceilPow2(extent / 2)));
  return { threads: columns * width, rows: columns, width, neighbours: argmax };
}

function splitOf(layout: Unsplit, extent: number, rows: number, plan: RowPlan): number {
  // A row that is also stored fits one workgroup well (fuse.ts keeps longer ones apart).
  if (plan.phases.some((phase) => phase.full.length > 0)) return 1;
  const share = extent / layout.width;
  const groups = Math.ceil(rows / layout.rows);
  const forAccuracy = Math.ceil(share / longest);
  if (groups >= fewGroups || share <= largeShare) return forAccuracy;
  const forSpeed = Math.min(Math.ceil(wantedGroups / groups), Math.floor(share / leastShare));
  return Math.max(forAccuracy, forSpeed);
}
