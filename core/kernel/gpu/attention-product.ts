/**
 * @file What the GPU kernels of attention are made of: a workgroup's place in its tile, its arrays, and products whose sums
 * stay in registers. An operand comes from memory through workgroup memory (matmul-tiled.ts), or lies there already: the
 * weights, row by row.
 */
import type { Node } from "../../graph/node.ts";
import {
  type Cond,
  delinearize,
  type Index,
  iadd,
  idiv,
  imod,
  imul,
  isub,
  ivar,
  num,
} from "../../schedule/symbolic.ts";
import { f32, get, number, type Parts, put } from "../attention-parts.ts";
import type { Evaluator } from "../evaluate.ts";
import { type Stmt, serial, type Value } from "../ir.ts";
import {
  type AttentionPass,
  type AttentionTile,
  columnsOf,
  sharedSizes,
  threadsOf,
  weightStride,
} from "./attention-tile.ts";
import { lane, lanes, overLanes } from "./lanes.ts";
import { sideOf } from "./matmul-operand.ts";
import { copies, guard, type Side } from "./matmul-product.ts";
import { fetch, heldSize, keep, type Panel } from "./matmul-tiled.ts";
import { threadVar } from "./stage.ts";

export const barrier: Stmt = { k: "barrier" };

/** Sums of a product in registers: `rows` × `columns` of this invocation. */
export interface Sums {
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
}

/** An operand as [x, k]; x beyond `size` and k beyond `depth` are 0. */
export interface Matrix {
  readonly side: Side;
  readonly size: number;
  readonly depth: number;
}

export class Workgroup {
  readonly parts: Parts;
  readonly ev: Evaluator;
  readonly tile: AttentionTile;
  readonly pass: AttentionPass;
  /** Row and column of this invocation among those of the workgroup. */
  readonly row: Index;
  readonly column: Index;
  readonly arrays: Stmt[] = [];
  #held = { a: 0, b: 0 };
  #left = 0;
  #right = 0;

  constructor(parts: Parts, ev: Evaluator, tile: AttentionTile, pass: AttentionPass) {
    this.parts = parts;
    this.ev = ev;
    this.tile = tile;
    this.pass = pass;
    const t = ivar(threadVar, threadsOf(tile));
    [this.row, this.column] = delinearize(t, [tile.down, tile.across]);
    const sizes = sharedSizes(tile, pass, parts.sizes);
    this.shared("tileA", sizes.a);
    this.shared("tileB", sizes.b);
    this.shared("weights", sizes.weights);
  }

  shared(name: string, size: number): void {
    this.arrays.push({ k: "shared", name, dtype: "f32", size });
  }

  local(name: string, size: number): void {
    this.arrays.push({ k: "local", name, dtype: "f32", size });
  }

  sums(name: string, extent: number, width: number): Sums {
    const sums = { name, rows: extent / this.tile.down, columns: columnsOf(this.tile, width) };
    this.local(name, sums.rows * sums.columns);
    return sums;
  }

  /** The arrays that products turned out to need, and the body. */
  finish(body: readonly Stmt[]): readonly Stmt[] {
    this.local("heldA", this.#held.a);
    this.local("heldB", this.#held.b);
    this.local("left", this.#left);
    this.local("right", this.#right);
    return [...this.arrays, ...body];
  }

  // --- where ----------------------------------------------------------------------------------------------------------

  /** Row r of this invocation: its rows lie in groups of four, the groups apart, as in matmul-tiled.ts. */
  rowAt(r: Index, rows: number): Index {
    const group = Math.min(lanes, rows);
    const apart = (rows * this.tile.down) / (rows / group);
    return iadd(imul(idiv(r, group), apart), imul(this.row, group), imod(r, group));
  }

  /** Column of lane 0 of its vec4 number j. */
  columnAt(j: Index): Index {
    return iadd(imul(j, this.tile.across * lanes), imul(this.column, lanes));
  }

  cell({ columns }: Sums, r: Index, j: Index): Index {
    return iadd(imul(r, columns), imul(j, lanes), lane);
  }

  /** An operand [B, heads, rows, columns] of which `at` gives the head; its rows are x, or k if `transposed`. */
  matrix(n: Node, at: readonly [Index, Index], transposed = false): Matrix {
    const [, , rows, columns] = n.shape;
    const [size, depth] = transposed ? [columns, rows] : [rows, columns];
    const index = (_: Index, x: Index, k: Index) => [...at, ...(transposed ? [k, x] : [x, k])];
    return { side: sideOf(this.ev, n, [1, size, depth], index), size, depth };
  }

  // --- registers ------------------------------------------------------------------------------------------------------

  /** For each row and vec4 of sums. */
  each(sums: Sums, body: (r: Index, j: Index) => readonly Stmt[]): readonly Stmt[] {
    return copies("r", sums.rows, (r) =>
      copies("j", sums.columns / lanes, (j) => [overLanes(body(r, j))]),
    );
  }

  fill(sums: Sums, value: number): readonly Stmt[] {
    return this.each(sums, (r, j) => [put(sums.name, this.cell(sums, r, j), number(value))]);
  }

  /** For each row that is there: its own number and that in the tensor. */
  eachRow(
    sums: Sums,
    first: Index,
    size: number,
    body: (r: Index, row: Index) => readonly Stmt[],
  ): readonly Stmt[] {
    return copies("r", sums.rows, (r) => {
      const row = iadd(first, this.rowAt(r, sums.rows));
      return guard(row, size, body(r, row));
    });
  }

  // --- products -------------------------------------------------------------------------------------------------------

  /** sums += A[rows, k] · B[columns, k], of rows from a0 and columns from b0. */
  product(sums: Sums, a: Matrix, a0: Index, b: Matrix, b0: Index): readonly Stmt[] {
    const { tile } = this;
    const steps = Math.ceil(a.depth / tile.depth);
    // Steps of even depth: 20 is 12 + 8, not 16 + 4.
    const depth = lanes * Math.ceil(a.depth / steps / lanes);
    const rows = sums.rows * tile.down;
    const panelA = this.#panel("A", a, rows, a0, depth);
    const panelB = this.#panel("B", b, tile.across * sums.columns, b0, depth);
    const k = ivar("k", depth);
    const left = this.#leftColumns(sums, (x) => get("tileA", iadd(imul(k, rows), x)));
    const compute = serial("k", num(depth), [...left, ...this.#multiply(sums, panelB, k)]);
    return this.#steps([panelA, panelB], steps, depth, num(0), a.depth, compute);
  }

  /**
   * sums += W[rows, k] · B[columns, k] with the weights, which all invocations can see by now; k counts from k0 in B. With
   * `transposed` the weights' columns are the rows.
   */
  weighted(sums: Sums, b: Matrix, k0: Index, transposed = false): readonly Stmt[] {
    const { tile } = this;
    const stride = weightStride(tile);
    const { depth } = tile;
    const count = transposed ? tile.queries : tile.keys;
    const steps = count / depth;
    const panel = this.#panel("B", b, tile.across * sums.columns, num(0), count);
    const start = imul(ivar("step", steps), depth);
    let compute: Stmt;
    if (transposed) {
      const k = ivar("k", depth);
      const left = this.#leftColumns(sums, (x) =>
        get("weights", iadd(imul(iadd(start, k), stride), x)),
      );
      compute = serial("k", num(depth), [...left, ...this.#multiply(sums, panel, k)]);
    } else {
      // Four k at a time, since that is how they lie.
      this.#left = Math.max(this.#left, lanes * sums.rows);
      const quad = ivar("quad", depth / lanes);
      const left = copies("r", sums.rows, (r) => {
        const at = iadd(imul(this.rowAt(r, sums.rows), stride), start, imul(quad, lanes), lane);
        return [overLanes([put("left", iadd(imul(r, lanes), lane), get("weights", at))])];
      });
      const four = copies("k", lanes, (k) =>
        this.#multiply(sums, panel, iadd(imul(quad, lanes), k), (r) => iadd(imul(r, lanes), k)),
      );
      compute = serial("quad", num(depth / lanes), [...left, ...four]);
    }
    return this.#steps([panel], steps, depth, k0, b.depth, compute);
  }

  /** `count`: how much of k the product goes through at a time. */
  #panel(name: "A" | "B", matrix: Matrix, extent: number, start: Index, count: number): Panel {
    const { side, size, depth } = matrix;
    // What whole tiles make up has no edge: neither x nor k, which bounds are about in this order, leaves it.
    const whole = [size % extent === 0, depth % count === 0];
    const at: Side["at"] = (b, x, k, bounds) =>
      side.at(
        b,
        x,
        k,
        bounds.filter((_, i) => !whole[i]),
      );
    const names = { tile: `tile${name}`, held: `held${name}` };
    return { side: { ...side, at }, ...names, extent, size, start, stride: extent };
  }

  /** The rows of one k into registers, where they lie side by side. */
  #leftColumns({ rows }: Sums, at: (x: Index) => Value): readonly Stmt[] {
    this.#left = Math.max(this.#left, rows);
    if (rows % lanes > 0)
      return copies("r", rows, (r) => [put("left", r, at(this.rowAt(r, rows)))]);
    return copies("r", rows / lanes, (r) => {
      const first = imul(r, lanes);
      return [overLanes([put("left", iadd(first, lane), at(iadd(this.rowAt(first, rows), lane)))])];
    });
  }

  #multiply(
    sums: Sums,
    panel: Panel,
    k: Index,
    leftAt: (r: Index) => Index = (r) => r,
  ): readonly Stmt[] {
    const { columns } = sums;
    this.#right = Math.max(this.#right, columns);
    const quads = columns / lanes;
    const at = (j: Index) => iadd(imul(k, panel.stride), this.columnAt(j), lane);
    return [
      ...copies("j", quads, (j) => [
        overLanes([put("right", iadd(imul(j, lanes), lane), get(panel.tile, at(j)))]),
      ]),
      ...this.each(sums, (r, j) => {
        const right = get("right", iadd(imul(j, lanes), lane));
        const product = f32("mul", get("left", leftAt(r)), right);
        const cell = this.cell(sums, r, j);
        return [put(sums.name, cell, f32("add", get(sums.name, cell), product))];
      }),
    ];
  }

  /** Fetches, a step ahead, and multiplies; before it ends all invocations are through with the tiles. */
  #steps(
    panels: readonly Panel[],
    steps: number,
    depth: number,
    k0: Index,
    size: number,
    compute: Stmt,
  ): readonly Stmt[] {
    const threads = threadsOf(this.tile);
    for (const p of panels) {
      const which = p.held === "heldA" ? "a" : "b";
      this.#held[which] = Math.max(this.#held[which], heldSize(p, depth, threads));
    }
    const step = ivar("step", steps);
    const fetchAll = (i: Index) =>
      panels.flatMap((p) => fetch(p, depth, threads, num(0), size, iadd(k0, imul(i, depth))));
    const after: Cond = [isub(num(steps - 2), step)];
    const next: Stmt[] =
      steps > 1 ? [{ k: "if", cond: after, body: fetchAll(iadd(step, num(1))) }] : [];
    return [
      ...inScope(fetchAll(num(0))),
      serial("step", num(steps), [
        ...panels.flatMap((p) => keep(p, depth, threads, num(0), get, put)),
        barrier,
        ...next,
        compute,
        barrier,
      ]),
    ];
  }
}

/** Names that the statements declare end here. */
const inScope = (body: readonly Stmt[]): readonly Stmt[] => [serial("once", num(1), body)];
