/**
 * @file Sorting one line per task digit by digit, from the lowest (radix sort): elements move to the places that the
 * counts of their digits leave them, in order, so equal ones stay in order. n·digits steps whatever the data is.
 */
import { delinearize, type Index, iadd, ivalue, ivar, num } from "../schedule/symbolic.ts";
import { type Stmt, serial, type Value, vector } from "./ir.ts";
import {
  bind,
  i32,
  int,
  keyBits,
  keyOf,
  local,
  named,
  read,
  type Sorted,
  type SortSpec,
  write,
} from "./sort-keys.ts";

/** Lines from which wider digits, hence more counters and fewer passes, are worth it. */
const wideFrom = 8192;

export function radixSort(spec: SortSpec): Sorted {
  const { outer, count, inner, outBuffer } = spec;
  const bits = keyBits(spec.dtype);
  const digit = count >= wideFrom && bits === 32 ? 11 : 8;
  const bins = 2 ** digit;
  const passes = Math.ceil(bits / digit);
  const task = ivar("task", outer * inner);
  const [o, i] = delinearize(task, [outer, inner]);

  /** Pass p's digit of the key, as a position among the counters. */
  const digitOf = (p: number, name: string): Stmt => {
    const width = Math.min(digit, bits - p * digit);
    const shifted = p === 0 ? named("key") : i32("shr", named("key"), int(p * digit));
    const low = i32("and", shifted, int(2 ** width - 1));
    // The sign turned around: negative keys are the smaller ones.
    const top = p === passes - 1 && bits === 32;
    const value = top ? i32("xor", low, int(2 ** (width - 1))) : low;
    return { k: "position", name, value, size: bins };
  };
  const counter = (p: number, name: string): Index => iadd(num(p * bins), ivalue(name, bins));

  const j = ivar("from", count);
  const { stmts, value } = keyOf(spec, spec.src(o, j, i));
  const counting = Array.from({ length: passes }, (_, p): Stmt[] => [
    digitOf(p, `digit${p}`),
    write(
      "bins",
      counter(p, `digit${p}`),
      i32("add", read("bins", counter(p, `digit${p}`)), int(1)),
    ),
  ]);
  const body: Stmt[] = [
    local("keys0", count),
    local("bins", passes * bins),
    ...(passes > 1 ? [local("keys1", count), local("order0", count), local("order1", count)] : []),
    vector("from", num(count), [...stmts, write("keys0", j, value)]),
    vector("bin", num(passes * bins), [write("bins", ivar("bin", passes * bins), int(0))]),
    serial("from", num(count), [bind("key", read("keys0", j)), ...counting.flat()]),
  ];
  for (let p = 0; p < passes; p++) {
    // From counts to where each digit's elements start.
    const bin = iadd(num(p * bins), ivar("bin", bins));
    const start = `start${p}`;
    body.push({ k: "acc", name: start, dtype: "i32", combine: "sum" });
    body.push(
      serial("bin", num(bins), [
        bind("size", read("bins", bin)),
        write("bins", bin, named(start)),
        { k: "update", name: start, value: named("size") },
      ]),
    );
    const [from, to] = [p % 2, 1 - (p % 2)];
    const at = ivalue("to", count);
    const element: Value =
      p === 0 ? { k: "index", dtype: "i32", index: j } : read(`order${from}`, j);
    const moved: Stmt[] =
      p === passes - 1
        ? [{ k: "store", buffer: outBuffer, index: spec.out(o, at, i), value: element }]
        : [write(`keys${to}`, at, named("key")), write(`order${to}`, at, element)];
    body.push(
      serial("from", num(count), [
        bind("key", read(`keys${from}`, j)),
        digitOf(p, "digit"),
        bind("next", read("bins", counter(p, "digit"))),
        write("bins", counter(p, "digit"), i32("add", named("next"), int(1))),
        { k: "position", name: "to", value: named("next"), size: count },
        ...moved,
      ]),
    );
  }
  return { extent: outer * inner, body };
}
