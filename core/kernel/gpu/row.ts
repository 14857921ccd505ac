/**
 * @file Rows of reductions on a GPU: several invocations share the reduced axes of one result.
 *
 * Along the row (softmax, norms): the invocations of a row are neighbours and take neighbouring elements, so a warp reads
 * whole memory transactions; each has sums of its own, which are combined at the end of a pass. Rows up to 128 elements
 * keep to one warp, several rows to a workgroup; longer ones get as many invocations as leave each 16 elements, and those
 * stay in registers from pass to pass, so that softmax and layerNorm read memory once (the persistent softmax of PyTorch and
 * of Triton's tutorial).
 * Down columns (gradients of biases): neighbouring invocations take neighbouring columns, groups of them share out the
 * rows and are combined through workgroup memory.
 * Few very long rows (a loss): the row is also shared out between workgroups. Each phase is then a kernel that writes
 * partial results, and the next combines them first (Harris 2007, "Optimizing Parallel Reduction in CUDA"). How a row is
 * shared follows from its shape alone, so results do not depend on timing, and no float is added atomically.
 */
import type { Node } from "../../graph/node.ts";
import { placeholder } from "../../graph/primitives.ts";
import type { Group } from "../../schedule/group.ts";
import {
  delinearize,
  type Index,
  iadd,
  idiv,
  imin,
  imod,
  imul,
  ivalue,
  ivar,
  linearize,
  num,
  substitute,
} from "../../schedule/symbolic.ts";
import { Evaluator, type Scope } from "../evaluate.ts";
import { type Stmt, type Value, variable, widen, wideType } from "../ir.ts";
import { type Loop, mapIndices } from "../loops.ts";
import { type Nest, sourceIndex } from "../nest.ts";
import {
  type At,
  bindReductions,
  declareReductions,
  emitPerRow,
  emitPhase,
  type Phase,
  type Reduction,
  type RowPlan,
  type RowSchedule,
} from "../phases.ts";
import { extentOf } from "../row.ts";
import { totalColumns } from "./columns.ts";
import { evaluatedIn, worthKeeping } from "./keep.ts";
import { accessesOf, elementEnv, worthVectors } from "./lanes.ts";
import type { Layout } from "./layout.ts";
import type { GpuLowered, Stage, Temporary } from "./lower.ts";
import { allReduce } from "./reduction.ts";
import { shareOut, walkPiece } from "./share.ts";
import {
  below,
  groupVar,
  guarded,
  isZero,
  overwritableIn,
  stageOf,
  type Temporaries,
  threadVar,
} from "./stage.ts";
import type { GpuTarget } from "./target.ts";

/** Partial results: of a reduction, one placeholder of shape [split, rows]. */
type Partials = ReadonlyMap<Node, Node>;

interface Setting {
  readonly group: Group;
  readonly inMemory: (n: Node) => boolean;
  readonly nest: Nest;
  readonly plan: RowPlan;
  readonly layout: Layout;
  readonly target: GpuTarget;
  readonly partials: Partials;
  readonly temporaries: Temporaries;
}

export function lowerRows(
  group: Group,
  inMemory: (n: Node) => boolean,
  nest: Nest,
  plan: RowPlan,
  layout: Layout,
  target: GpuTarget,
): GpuLowered {
  const partials = new Map<Node, Node>();
  const temporaries = new Map<Node, Temporary>();
  if (layout.split > 1)
    for (const n of plan.phases.flatMap((phase) => phase.reductions)) {
      const [dtype, shape] = [wideType(n.dtype), [layout.split, extentOf(nest.kept)]];
      const partial = placeholder(dtype, shape, null);
      partials.set(n, partial);
      temporaries.set(partial, { dtype, size: shape[0] * shape[1] });
    }
  const setting = { group, inMemory, nest, plan, layout, target, partials, temporaries };
  // A first emission shows the addresses, and what several passes evaluate alike.
  const trial = new Rows(setting);
  trial.whole();
  const quads = layout.neighbours && worthVectors(nest.reduced, accessesOf(trial.ev));
  if (layout.split === 1) {
    const rows = new Rows(setting, quads, trial.worthKeeping(quads));
    return { stages: [rows.whole()], overwritable: overwritableIn(rows.ev, writers, plan.perRow) };
  }
  const parts = plan.phases.map((phase) => new Rows(setting, quads).part(phase));
  const last = new Rows(setting, quads);
  const stages = [...parts, last.end()];
  return { stages, overwritable: overwritableIn(last.ev, writers, plan.perRow) };
}

/** Depths of the scopes of an invocation's row, and of what only the row's writer runs. */
const perRow = 1;
const writers = 2;

class Rows implements RowSchedule {
  readonly ev: Evaluator;
  private readonly setting: Setting;
  private readonly quads: boolean;
  private readonly keep: ReadonlySet<string>;
  private readonly at: At;
  /** What each pass evaluates in a row: key → its value, once per pass. */
  private readonly passes: Map<string, Value>[] = [];
  private readonly results = new Map<Reduction, Value>();
  /** Workgroups that share the row in this stage. */
  private split = 1;

  constructor(setting: Setting, quads = false, keep: ReadonlySet<string> = new Set()) {
    const { nest, inMemory, temporaries } = setting;
    this.setting = setting;
    this.quads = quads;
    this.keep = keep;
    this.at = (map) => map.map((x) => substitute(x, nest.env));
    this.ev = new Evaluator((n) => temporaries.has(n) || inMemory(n));
    this.ev.push([]);
    this.ev.push(axesOf(nest.kept));
  }

  /** The group in one stage. */
  whole(): Stage {
    const { group, plan } = this.setting;
    for (const phase of plan.phases) emitPhase(group, this.ev, this.at, phase, this);
    return this.end([]);
  }

  /** One phase of a split row, after the results of those before it: partial results. */
  part(phase: Phase): Stage {
    const { group, plan, layout, partials } = this.setting;
    for (const before of plan.phases) if (before.number < phase.number) this.combineParts(before);
    this.split = layout.split;
    const reductions = emitPhase(group, this.ev, this.at, phase, this);
    this.write(() => {
      const at = [ivar("chunk", layout.split), this.rowNumber()];
      const stmts = this.ev.scopes[this.ev.depth].stmts;
      for (const r of reductions)
        stmts.push(this.ev.store(partials.get(r.node)!, at, this.result(r)));
    });
    return this.finish();
  }

  /** What is stored once per row, after the results of `phases`. */
  end(phases: readonly Phase[] = this.setting.plan.phases): Stage {
    const { group, plan } = this.setting;
    for (const phase of phases) this.combineParts(phase);
    this.write(() => emitPerRow(group, this.ev, this.at, plan));
    return this.finish();
  }

  pass(_phase: Phase, reductions: readonly Reduction[], element: () => void): void {
    const { ev, setting } = this;
    const { layout, nest } = setting;
    ev.push(axesOf(nest.reduced));
    element();
    const scope = ev.pop();
    this.passes.push(evaluatedIn(scope));
    const me = ivar("me", layout.width * this.split);
    const width = layout.width * this.split;
    const { pieces, slots } = shareOut(extentOf(nest.reduced), width, me, this.quads);
    const stmts = [...scope.stmts, ...this.keepValues(scope, slots)];
    // Rows beyond the last compute it again, since all invocations meet at barriers. They write nothing.
    const body = stmts.flatMap((s) => (s.k === "store" ? guarded([this.inside()], [s]) : [s]));
    for (const piece of pieces) {
      const env = elementEnv(nest.reduced, piece.element).set("slot", piece.slot);
      const walk = walkPiece(piece, mapIndices(body, env), this.keep.size > 0);
      ev.scopes[perRow].stmts.push(...walk);
    }
    this.combine(reductions);
  }

  result(r: Reduction): Value {
    return this.results.get(r) ?? variable(r.result, r.name);
  }

  /** Which values passes had better keep for later ones. */
  worthKeeping(quads: boolean): Set<string> {
    const { layout, nest } = this.setting;
    const me = ivar("me", layout.width);
    const { slots } = shareOut(extentOf(nest.reduced), layout.width, me, quads);
    return worthKeeping(this.passes, slots);
  }

  /** Puts into scratch what a pass evaluates first; later passes then find it there. */
  private keepValues(scope: Scope, slots: number): Stmt[] {
    const { ev } = this;
    const stmts: Stmt[] = [];
    for (const key of this.keep) {
      const value = scope.memo.get(key)?.value;
      if (!value || ev.cached.has(key)) continue;
      const [local, index] = [ev.fresh("k"), ivar("slot", slots)];
      ev.scopes[0].stmts.unshift({ k: "local", name: local, dtype: value.dtype, size: slots });
      stmts.push({ k: "localStore", local, index, value });
      ev.cached.set(key, { k: "localLoad", dtype: value.dtype, local, index });
    }
    return stmts;
  }

  /** Combines accumulators over the invocations of a row; all of them then know the results. */
  private combine(reductions: readonly Reduction[]): void {
    const { layout, target } = this.setting;
    if (layout.width === 1 || reductions.length === 0) return;
    const into = this.ev.scopes[perRow].stmts;
    if (layout.neighbours)
      for (const { name } of reductions) into.push(allReduce(name, layout.width, target));
    else
      for (const [r, total] of totalColumns(this.ev, into, layout, reductions))
        this.results.set(r, total);
  }

  /** Combines the partial results of an earlier stage, as if they were the elements of a row. */
  private combineParts(phase: Phase): void {
    const { ev, setting } = this;
    const { layout, partials } = setting;
    const reductions = declareReductions(ev, phase);
    const parts: Loop = {
      axes: [{ name: "part", extent: layout.split, reduced: true }],
      extent: layout.split,
      reduced: true,
    };
    ev.push(axesOf([parts]));
    for (const r of reductions) {
      const index = [ivar("part", layout.split), this.rowNumber()];
      const { value } = ev.evaluate(partials.get(r.node)!, index);
      const update = r.combine === "argmax" ? this.candidate(r, value) : { value };
      ev.scopes[ev.depth].stmts.push({ k: "update", name: r.name, ...update });
    }
    const { stmts } = ev.pop();
    const lane = ivar("lane", layout.width);
    for (const piece of shareOut(layout.split, layout.width, lane, false).pieces) {
      const body = mapIndices(stmts, elementEnv([parts], piece.element));
      ev.scopes[perRow].stmts.push(...walkPiece(piece, body, false));
    }
    this.combine(reductions);
    bindReductions(ev, reductions, this);
  }

  /** A part's argmax is known by its place: its value is evaluated again. */
  private candidate(r: Reduction, place: Value): { value: Value; at: Index } {
    const { ev, setting } = this;
    const { group, nest } = setting;
    const { axis } = (r.node as Node<"argmax">).attrs;
    const source = r.node.src[0];
    const size = source.shape[axis];
    const name = `${r.name}at`;
    const position = ev.position(name, place, size, ev.depth);
    const at = ivalue((position.value as { name: string }).name, size);
    const index = sourceIndex(r.node, group).map((x, i) =>
      i === axis ? at : substitute(x, nest.env),
    );
    return { value: widen(ev.evaluate(source, index).value), at };
  }

  /** What only the first invocation of each row does. */
  private write(emit: () => void): void {
    const { ev, setting } = this;
    const { layout, nest } = setting;
    // The row's variables once more: what only the writer needs is evaluated by it alone.
    ev.push(axesOf(nest.kept));
    emit();
    const { stmts } = ev.pop();
    if (stmts.length === 0) return;
    const cond = [isZero(ivar("lane", layout.width)), this.inside()];
    ev.scopes[perRow].stmts.push(...guarded(cond, stmts));
  }

  /** The row as a number, in the nest's variables. */
  private rowNumber(): Index {
    const axes = this.setting.nest.kept.flatMap((loop) => loop.axes);
    return linearize(
      axes.map((a) => ivar(a.name, a.extent)),
      axes.map((a) => a.extent),
    );
  }

  private get groups(): number {
    const { layout, nest } = this.setting;
    return Math.ceil(extentOf(nest.kept) / layout.rows) * this.split;
  }

  /** The invocation's row, which may lie beyond the last one, and its number among those of the row. */
  private place(): { row: Index; lane: Index; chunk: Index } {
    const { rows, width, threads, neighbours } = this.setting.layout;
    const [block, chunk] = delinearize(ivar(groupVar, this.groups), [
      this.groups / this.split,
      this.split,
    ]);
    const t = ivar(threadVar, threads);
    const [row, lane] = neighbours
      ? [idiv(t, width), imod(t, width)]
      : [imod(t, rows), idiv(t, rows)];
    return { row: iadd(imul(block, rows), row), lane, chunk };
  }

  private inside(): Index {
    return below(this.place().row, extentOf(this.setting.nest.kept));
  }

  private finish(): Stage {
    const { ev, setting } = this;
    const { group, nest, layout, temporaries } = setting;
    const row = ev.pop().stmts;
    const before = ev.pop().stmts;
    const { row: at, lane, chunk } = this.place();
    const env = elementEnv(nest.kept, imin(at, num(extentOf(nest.kept) - 1)));
    env.set("lane", lane).set("chunk", chunk);
    env.set("me", iadd(imul(chunk, this.split > 1 ? layout.width : 0), lane));
    const body = [...before, ...mapIndices(row, env)];
    return stageOf(group, ev, { groups: this.groups, threads: layout.threads }, body, temporaries);
  }
}

const axesOf = (loops: readonly Loop[]): string[] =>
  loops.flatMap((loop) => loop.axes.map((a) => a.name));
