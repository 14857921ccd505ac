/**
 * @file Matrix products that are bound by reading one operand once (matrix × vector, decoding), or by writing the result
 * (outer products): forms without tiles. All have few rows; the caller transposes the others.
 *
 * dot: columns of B that are contiguous along k are walked by several invocations each, four elements at a time, which
 * then add up what they have. columns: rows of B that are contiguous along n give each invocation four columns; parts of
 * K meet in workgroup memory. direct: one invocation does its results alone. All sums have a fixed order.
 */
import { delinearize, type Index, iadd, imul, ivar, lt, num } from "../../schedule/symbolic.ts";
import { type Stmt, serial, type Value, variable } from "../ir.ts";
import { lane, lanes, overLanes } from "./lanes.ts";
import {
  guard,
  laneBelow,
  type Product,
  partOf,
  resultLanes,
  type Scheduled,
} from "./matmul-product.ts";
import type { Form } from "./matmul-tile.ts";
import { allReduce } from "./reduction.ts";
import { groupVar, threadVar } from "./stage.ts";
import type { GpuTarget } from "./target.ts";

type FormOf<F extends Form["form"]> = Extract<Form, { form: F }>;

const times = <T>(count: number, f: (i: number) => T): T[] =>
  Array.from({ length: count }, (_, i) => f(i));

const sum = (p: Product, name: string): Stmt => ({
  k: "acc",
  name,
  dtype: p.dtype,
  combine: "sum",
});

export function dotProduct(p: Product, form: FormOf<"dot">, target: GpuTarget): Scheduled {
  const { threads, width, columns, splits } = form;
  const sets = threads / width;
  const blocks = Math.ceil(p.n / (sets * columns));
  const groups = splits * p.batch * blocks;
  const [split, b, block] = delinearize(ivar(groupVar, groups), [splits, p.batch, blocks]);
  const [set, me] = delinearize(ivar(threadVar, threads), [sets, width]);
  const n0 = imul(iadd(imul(block, sets), set), columns);
  const steps = partOf(p.k, width * lanes, splits, split);
  const k0 = iadd(steps.at(ivar("step", steps.extent.max)), imul(me, lanes));
  const name = (m: number, c: number): string => `sum${m}_${c}`;

  const inner: Stmt[] = [];
  const left: Value[] = [];
  for (let m = 0; m < p.m; m++) {
    const { stmts, value } = p.a.at(b, num(m), iadd(k0, lane), [laneBelow(k0, p.k)]);
    inner.push(...stmts, { k: "let", name: `left${m}`, value });
    left.push(variable(p.dtype, `left${m}`));
  }
  for (let c = 0; c < columns; c++) {
    const n = iadd(n0, num(c));
    const { stmts, value } = p.b.at(b, n, iadd(k0, lane), [laneBelow(k0, p.k), lt(n, p.n)]);
    inner.push(...stmts, { k: "let", name: `right${c}`, value });
    const right = variable(p.dtype, `right${c}`);
    for (let m = 0; m < p.m; m++)
      inner.push({ k: "update", name: name(m, c), value: left[m], times: right });
  }
  const names = times(p.m, (m) => times(columns, (c) => name(m, c))).flat();
  const results = times(columns, (c) => {
    const n = iadd(n0, num(c));
    const all = times(p.m, (m) =>
      p.finish({ b, m: num(m), n, split }, variable(p.dtype, name(m, c)), []),
    );
    return guard(n, p.n, all.flat());
  }).flat();
  const body: Stmt[] = [
    ...names.map((s) => sum(p, s)),
    overLanes([serial("step", steps.extent, inner)]),
    ...(width > 1 ? names.map((s) => allReduce(s, width, target)) : []),
    ...guard(me, 1, results),
  ];
  return { groups, threads, body };
}

export function columnsProduct(p: Product, form: FormOf<"columns">): Scheduled {
  const { across, along, splits } = form;
  const threads = across * along;
  const blocks = Math.ceil(p.n / (across * lanes));
  const groups = splits * p.batch * blocks;
  const [split, b, block] = delinearize(ivar(groupVar, groups), [splits, p.batch, blocks]);
  const t = ivar(threadVar, threads);
  const [part, quad] = delinearize(t, [along, across]);
  const first = imul(block, across);
  const n0 = imul(iadd(first, quad), lanes);
  const steps = partOf(p.k, along, splits, split);
  const k = iadd(steps.at(ivar("step", steps.extent.max)), part);

  const inner: Stmt[] = [];
  const right = p.b.at(b, iadd(n0, lane), k, [laneBelow(n0, p.n), lt(k, p.k)]);
  inner.push(...right.stmts, { k: "let", name: "right", value: right.value });
  for (let m = 0; m < p.m; m++) {
    const { stmts, value } = p.a.at(b, num(m), k, [lt(k, p.k)]);
    const factor = variable(p.dtype, "right");
    inner.push(...stmts, { k: "update", name: `sum${m}`, value, times: factor });
  }
  const names = times(p.m, (m) => `sum${m}`);
  const cell = (part: Index, m: Index, quad: Index): Index =>
    iadd(imul(iadd(imul(iadd(imul(part, p.m), m), across), quad), lanes), lane);
  const own = overLanes([
    ...names.map((s) => sum(p, s)),
    serial("step", steps.extent, inner),
    ...names.map(
      (s, m): Stmt => ({
        k: "localStore",
        local: "parts",
        index: cell(part, num(m), quad),
        value: variable(p.dtype, s),
      }),
    ),
  ]);
  // The parts of K of one row and four columns are added by one invocation.
  const items = p.m * across;
  const rounds = Math.ceil(items / threads);
  const e = iadd(imul(ivar("round", rounds), threads), t);
  const [m, q] = delinearize(e, [p.m, across]);
  const column = imul(iadd(first, q), lanes);
  const other = ivar("part", along);
  const value: Value = {
    k: "localLoad",
    dtype: p.dtype,
    local: "parts",
    index: cell(other, m, q),
  };
  const total = resultLanes(p, column, (mask) => [
    sum(p, "total"),
    serial("part", num(along), [{ k: "update", name: "total", value }]),
    ...p.finish({ b, m, n: iadd(column, lane), split }, variable(p.dtype, "total"), mask),
  ]);
  const body: Stmt[] = [
    { k: "shared", name: "parts", dtype: p.dtype, size: along * p.m * across * lanes },
    own,
    { k: "barrier" },
    serial("round", num(rounds), guard(e, items, total)),
  ];
  return { groups, threads, body };
}

export function directProduct(p: Product, { threads, rows }: FormOf<"direct">): Scheduled {
  const quads = Math.ceil(p.n / lanes);
  const bands = Math.ceil(p.m / rows);
  const items = p.batch * bands * quads;
  const groups = Math.ceil(items / threads);
  const e = iadd(imul(ivar(groupVar, groups), threads), ivar(threadVar, threads));
  const [b, band, quad] = delinearize(e, [p.batch, bands, quads]);
  const [m0, n0] = [imul(band, rows), imul(quad, lanes)];
  const k = ivar("k", p.k);
  const at = (r: number): Index => iadd(m0, num(r));

  const names = times(rows, (r) => `sum${r}`);
  const inner = (): Stmt[] => {
    const right = p.b.at(b, iadd(n0, lane), k, [laneBelow(n0, p.n)]);
    const stmts: Stmt[] = [...right.stmts, { k: "let", name: "right", value: right.value }];
    names.forEach((name, r) => {
      const left = p.a.at(b, at(r), k, [lt(at(r), p.m)]);
      const factor = variable(p.dtype, "right");
      stmts.push(...left.stmts, { k: "update", name, value: left.value, times: factor });
    });
    return stmts;
  };
  const work = resultLanes(p, n0, (mask) => [
    ...names.map((name) => sum(p, name)),
    ...(p.k > 0 ? [serial("k", num(p.k), inner())] : []),
    ...names.flatMap((name, r) =>
      guard(
        at(r),
        p.m,
        p.finish({ b, m: at(r), n: iadd(n0, lane), split: num(0) }, variable(p.dtype, name), mask),
      ),
    ),
  ]);
  return { groups, threads, body: guard(e, items, work) };
}
