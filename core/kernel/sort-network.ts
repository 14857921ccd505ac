/**
 * @file Sorting several lines at once by a bitonic network (Batcher 1968). Their elements lie side by side in scratch, so
 * that every access is one vector, whatever the distance of the exchange; positions break ties, which makes it stable.
 *
 * Where only the first few of long lines are wanted, these are kept sorted while blocks of as many elements come in: a
 * block is sorted, and an exchange with what is kept leaves the best of both (as in a tournament of sorted runs).
 */
import {
  delinearize,
  type Index,
  iadd,
  idiv,
  imin,
  imul,
  isub,
  ivar,
  num,
} from "../schedule/symbolic.ts";
import { op, type Stmt, serial, type Value, variable, vector } from "./ir.ts";
import {
  bind,
  int,
  keyOf,
  lastKey,
  local,
  named,
  read,
  type Sorted,
  type SortSpec,
  write,
} from "./sort-keys.ts";

/** Lines of a task: two vectors. */
const lanes = 8;

const over = (n: Index, body: readonly Stmt[]): Stmt => vector("lane", n, body);
const times = (name: string, n: Index, body: readonly Stmt[]): Stmt => serial(name, n, body);
const lane = (n: Index): Index => ivar("lane", Math.max(1, n.max));
const placeOf = (j: Index, n: Index): Index => iadd(imul(j, lanes), lane(n));

/** Puts elements a and b of all lines in order. */
function exchange(a: Index, b: Index): Stmt {
  const [at, to] = [a, b].map((x) => placeOf(x, num(lanes)));
  const [ka, kb, ia, ib] = ["keyA", "keyB", "orderA", "orderB"].map(named);
  const tie = op("and", "bool", op("eq", "bool", ka, kb), op("lt", "bool", ib, ia));
  const swap = variable("bool", "swap");
  const pick = (x: Value, y: Value) => op("where", "i32", swap, x, y);
  return over(num(lanes), [
    bind("keyA", read("keys", at)),
    bind("keyB", read("keys", to)),
    bind("orderA", read("order", at)),
    bind("orderB", read("order", to)),
    bind("swap", op("or", "bool", op("lt", "bool", kb, ka), tie)),
    write("keys", at, op("min", "i32", ka, kb)),
    write("keys", to, op("max", "i32", ka, kb)),
    write("order", at, pick(ib, ia)),
    write("order", to, pick(ia, ib)),
  ]);
}

/** In each run of 2·half elements, of which both halves are sorted: what is small goes to the first, bitonic both. */
function mirror(base: number, size: number, half: number): Stmt {
  const begin = iadd(num(base), imul(ivar("pair", size / (2 * half)), 2 * half));
  const k = ivar("from", half);
  const mirrored = isub(iadd(begin, num(2 * half - 1)), k);
  const body = [times("from", num(half), [exchange(iadd(begin, k), mirrored)])];
  return times("pair", num(size / (2 * half)), body);
}

/** Sorts runs of bitonic elements, of 2·d each. */
function halve(base: number, size: number, most: number): Stmt[] {
  const stages: Stmt[] = [];
  for (let d = most; d >= 1; d /= 2) {
    const begin = imul(ivar("pair", size / (2 * d)), 2 * d);
    const start = iadd(iadd(num(base), begin), ivar("from", d));
    const body = [times("from", num(d), [exchange(start, iadd(start, num(d)))])];
    stages.push(times("pair", num(size / (2 * d)), body));
  }
  return stages;
}

/** Two sorted halves, the second read backwards, are bitonic: one exchange leaves everything small in front. */
function sort(base: number, size: number): Stmt[] {
  const stages: Stmt[] = [];
  for (let half = 1; half < size; half *= 2)
    stages.push(mirror(base, size, half), ...halve(base, size, half / 2));
  return stages;
}

const ceilPow2 = (n: number): number => 2 ** Math.ceil(Math.log2(n));

/** All of each line if that fits `block` elements, else the first `wanted`, at most `block`. */
function network(spec: SortSpec, block: number, wanted: number): Sorted {
  const { outer, count, inner } = spec;
  // Lines that are neighbours where there are enough, else lines of all kinds.
  const along = inner >= 4;
  const [groups, lines] = along ? [outer, inner] : [1, outer * inner];
  const tasks = Math.ceil(lines / lanes);
  const extent = groups * tasks;
  const [group, task] = delinearize(ivar("task", extent), [groups, tasks]);
  const first = imul(task, lanes);
  const active = imin(num(lanes), isub(num(lines), first));
  const line = iadd(first, lane(active));
  const [o, i] = along ? [group, line] : delinearize(line, [outer, inner]);

  const blocks = Math.ceil(count / block);
  const size = blocks > 1 ? 2 * block : block;
  const base = size - block;
  /** Elements of block `b` with their places; those that are not there, and lines that are not, sort to the end. */
  const fill = (b: Index): Stmt[] => {
    const begin = imul(b, block);
    const all = ivar("lane", block * lanes);
    const partial = blocks * block > count || lines % lanes !== 0;
    const here = imin(num(block), isub(num(count), begin));
    const k = ivar("from", here.max);
    const j = iadd(begin, k);
    const { stmts, value } = keyOf(spec, spec.src(o, j, i));
    const place = iadd(all, num(base * lanes));
    const index = iadd(begin, idiv(all, lanes));
    return [
      over(num(block * lanes), [
        write("order", place, { k: "index", dtype: "i32", index }),
        ...(partial ? [write("keys", place, lastKey)] : []),
      ]),
      times("from", here, [
        over(active, [...stmts, write("keys", placeOf(iadd(num(base), k), active), value)]),
      ]),
    ];
  };
  const body: Stmt[] = [local("keys", size * lanes), local("order", size * lanes)];
  if (blocks === 1) body.push(...fill(num(0)), ...sort(0, block));
  else {
    // Nothing is kept yet: all is after what comes.
    const all = ivar("lane", block * lanes);
    body.push(
      over(num(block * lanes), [
        write("order", all, int(blocks * block)),
        write("keys", all, lastKey),
      ]),
      times("block", num(blocks), [
        ...fill(ivar("block", blocks)),
        ...sort(base, block),
        mirror(0, size, block),
        ...halve(0, block, block / 2),
      ]),
    );
  }
  const j = ivar("from", wanted);
  const index = spec.out(o, j, i);
  const value = read("order", placeOf(j, active));
  body.push(
    times("from", num(wanted), [
      over(active, [{ k: "store", buffer: spec.outBuffer, index, value }]),
    ]),
  );
  return { extent, body };
}

export const networkSort = (spec: SortSpec): Sorted =>
  network(spec, ceilPow2(spec.count), spec.first);

/** A vector of lines needs no fewer than a few elements at a time to be worth the loops around them. */
const leastBlock = 16;

export const networkSelect = (spec: SortSpec): Sorted =>
  network(spec, Math.max(leastBlock, ceilPow2(spec.first)), spec.first);
