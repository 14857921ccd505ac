/**
 * @file Sorting several lines at once by a bitonic network (Batcher 1968). Their elements lie side by side in scratch, so
 * that every access is one vector, whatever the distance of the exchange; positions break ties, which makes it stable.
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

export function networkSort(spec: SortSpec): Sorted {
  const { outer, count, inner } = spec;
  const size = 2 ** Math.ceil(Math.log2(count));
  // Lines that are neighbours where there are enough, else lines of all kinds.
  const along = inner >= 4;
  const [groups, lines] = along ? [outer, inner] : [1, outer * inner];
  const blocks = Math.ceil(lines / lanes);
  const extent = groups * blocks;
  const [group, block] = delinearize(ivar("task", extent), [groups, blocks]);
  const first = imul(block, lanes);
  const active = imin(num(lanes), isub(num(lines), first));
  const lane = (n: Index): Index => ivar("lane", Math.max(1, n.max));
  const line = iadd(first, lane(active));
  const [o, i] = along ? [group, line] : delinearize(line, [outer, inner]);

  const over = (n: Index, body: readonly Stmt[]): Stmt => vector("lane", n, body);
  const times = (name: string, n: number, body: readonly Stmt[]): Stmt =>
    serial(name, num(n), body);

  /** Puts elements a and b of all lines in order. */
  const exchange = (a: Index, b: Index): Stmt => {
    const [at, to] = [a, b].map((x) => iadd(imul(x, lanes), lane(num(lanes))));
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
  };
  const body: Stmt[] = [local("keys", size * lanes), local("order", size * lanes)];
  const all = ivar("lane", size * lanes);
  // Elements that are not there, and lines that are not, sort to the end.
  const partial = size > count || lines % lanes !== 0;
  body.push(
    over(num(size * lanes), [
      write("order", all, { k: "index", dtype: "i32", index: idiv(all, lanes) }),
      ...(partial ? [write("keys", all, lastKey)] : []),
    ]),
  );
  const j = ivar("from", count);
  const at = iadd(imul(j, lanes), lane(active));
  const { stmts, value } = keyOf(spec, spec.src(o, j, i));
  body.push(times("from", count, [over(active, [...stmts, write("keys", at, value)])]));
  for (let half = 1; half < size; half *= 2) {
    // Two sorted halves, the second read backwards, are bitonic: one exchange leaves everything small in front.
    const begin = imul(ivar("pair", size / (2 * half)), 2 * half);
    const k = ivar("from", half);
    const mirrored = isub(iadd(begin, num(2 * half - 1)), k);
    body.push(
      times("pair", size / (2 * half), [times("from", half, [exchange(iadd(begin, k), mirrored)])]),
    );
    for (let d = half / 2; d >= 1; d /= 2) {
      const start = iadd(imul(ivar("pair", size / (2 * d)), 2 * d), ivar("from", d));
      body.push(
        times("pair", size / (2 * d), [times("from", d, [exchange(start, iadd(start, num(d)))])]),
      );
    }
  }
  const result = read("order", at);
  const index = spec.out(o, j, i);
  body.push(
    times("from", count, [
      over(active, [{ k: "store", buffer: spec.outBuffer, index, value: result }]),
    ]),
  );
  return { extent, body };
}
